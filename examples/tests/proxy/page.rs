//! What a browser is shown, without running its script.

use std::time::Duration;

use crate::{
    mutual::payment,
    support::{Directory, PROXY, Proxy, application, ask, ca, endpoints, until},
};

/// The page once it says so, without its style and its script.
async fn page_with(proxy: &Proxy, words: &str) -> String {
    until(&format!("the page says {words:?}"), async || {
        let (status, page) = proxy.admin("/").await;
        assert_eq!(status, 200);
        let (_, page) = page.split_once("<main>").unwrap();
        let (main, _) = page.split_once("</main>").unwrap();
        main.contains(words).then(|| main.to_owned())
    })
    .await
}

#[tokio::test]
async fn it_tells_who_the_proxy_is_and_whom_it_turned_away() {
    let ca = ca();
    let app = application("app", Duration::ZERO).await;
    let (files, pay) = payment(&ca, app, "spiffe://shop.example/sa/somebody").await;
    let page = page_with(&pay, "Nobody so far.").await;
    for words in
        ["spiffe://shop.example/sa/pay", "<dd>shop.example</dd>", " left</b>", "is STRICT", "ready"]
    {
        assert!(page.contains(words), "{words:?} is not in\n{page}");
    }
    let generation = |number: u32| format!("<dt>generation</dt><dd>{number}</dd>");
    assert!(page.contains(&generation(1)), "{page}");

    // Somebody comes in plaintext, and is refused; then that is allowed, and he is let in.
    let inbound = pay.address("inbound");
    assert!(ask(inbound, "pay", "/").await.is_err());
    let page = page_with(&pay, ">127.0.0.1</td>").await;
    assert!(page.contains("spoke plaintext, where mutual TLS is wanted"), "{page}");
    assert!(!page.contains("127.0.0.0/24"), "he was not let in: {page}");
    let (_, certs) = pay.admin("/certs").await;
    assert!(certs.contains("\"refused\":[{\"address\":\"127.0.0.1\""), "{certs}");
    let mode = std::fs::read_to_string(files.path().join("mtls.yaml")).unwrap();
    files.write("mtls.yaml", &mode.replace("STRICT", "PERMISSIVE"));
    until("plaintext is let in", async || ask(inbound, "pay", "/").await.ok()).await;
    let page = page_with(&pay, "127.0.0.0/24").await;
    assert!(page.contains("is PERMISSIVE"), "{page}");

    ca.issue("/sa/pay").unwrap().write_to(files.path()).unwrap();
    let page = page_with(&pay, &generation(2)).await;
    assert!(!page.contains("PRIVATE"), "{page}");
}

#[tokio::test]
async fn a_configuration_that_is_not_in_force_is_told_of_until_it_is() {
    let app = application("app", Duration::ZERO).await;
    let listed = [(app, "v1")];
    let directory = Directory::of_shop(&listed);
    let proxy = Proxy::start(&directory).await;
    let page = page_with(&proxy, "ready").await;
    assert!(!page.contains("alarm"), "{page}");
    assert!(page.contains(&app.to_string()) && page.contains("version=v1"), "{page}");
    assert!(page.contains("proves nothing"), "there is no identity: {page}");

    directory.write("endpoints.yaml", "upstreams: { shop: { tls: <b> } }");
    let page = page_with(&proxy, "The configuration was rejected").await;
    assert!(page.contains("endpoints.yaml:1:") && page.contains("&lt;b&gt;"), "{page}");
    directory.write("endpoints.yaml", &endpoints("shop", "", &listed));
    until("it is in force again", async || {
        (!proxy.admin("/").await.1.contains("The configuration was rejected")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn it_brings_everything_that_it_needs() {
    let directory =
        Directory::new().with("proxy.yaml", PROXY).with("endpoints.yaml", "upstreams: {}");
    let proxy = Proxy::start(&directory).await;
    let answer = ask(proxy.address("admin"), "admin", "/").await.unwrap();
    assert!(answer.headers["content-security-policy"].to_str().unwrap().contains("'none'"));
    for elsewhere in ["src=", "url(", "@import", "https://"] {
        assert!(!answer.body.contains(elsewhere), "{elsewhere} in\n{}", answer.body);
    }
    assert!(answer.body.contains("http-equiv=\"refresh\""), "it is live without a script");
}
