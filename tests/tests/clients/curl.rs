//! curl through a forwarder that is the client stack in five lines.

use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use mesh_tower::{
    pool::HttpEndpoints,
    upstream::{Answers, HttpUpstream, Upstream},
};
use tower::ServiceExt;

use crate::{bodies::SIZES, support::*};

/// Passes every request on to `upstream`, whose refusals are responses.
async fn forwarder(upstream: HttpUpstream<Incoming>) -> Server {
    Server::http(move |request| {
        let answer = upstream.clone().oneshot(request);
        async move {
            let response: Response<_> = answer.await.expect("Answers::All leaves no error");
            response.map(|body| body.boxed_unsync())
        }
    })
    .await
}

fn upstream(server: &Server) -> HttpUpstream<Incoming> {
    Upstream::builder("echo")
        .endpoints([server.endpoint()])
        .answers(Answers::All)
        .spawn(HttpEndpoints::plain())
        .unwrap()
}

#[tokio::test]
async fn curl_gets_back_what_it_sends_over_http1_and_http2() {
    let server = Server::http(echo).await;
    let front = forwarder(upstream(&server)).await;
    let url = format!("http://{}/echo", front.address);
    let directory = TempDir::new();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for size in SIZES {
            let (sent, file) = (pattern(size), directory.join("body"));
            std::fs::write(&file, &sent).unwrap();
            let data = format!("@{}", text(&file));
            let args = ["-sS", "--fail", "--noproxy", "*", version, "--data-binary", &data, &url];
            let Some(output) = run("curl", &args, b"").await else { return };
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{version} {size} B: {said}");
            assert!(output.stdout == sent, "{version} {size} B: {} B back", output.stdout.len());
        }
    }
    assert_eq!(server.requests(), 6);
}

#[tokio::test]
async fn curl_is_told_why_there_is_no_answer() {
    let server = Server::http(echo).await;
    let upstream = upstream(&server);
    upstream.set_endpoints([]);
    let front = forwarder(upstream).await;
    let url = format!("http://{}/", front.address);
    let args = ["-sS", "-i", "--noproxy", "*", &url];
    let Some(output) = run("curl", &args, b"").await else { return };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("x-mesh-flag: UH"), "{said}");
    assert_eq!(server.requests(), 0);
}
