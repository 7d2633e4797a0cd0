//! Two time limits for callers of HTTP/1.1: one for the head of a request, and one for the wait between two requests.
//!
//! hyper has one for both (`header_read_timeout`), which begins when the answer before is over: either a client that keeps
//! its connection for later loses it after a minute, or one that sends its head a letter a minute keeps it for an hour. But
//! hyper asks a timer for that time, and here is one that knows whether anything of the head has come. A head's time begins
//! with its first byte, as Envoy's `request_headers_timeout`; until then it is `idle_timeout` that runs.
//!
//! What has come together with the request before is not seen as the beginning of a head: such a caller has the time of an
//! idle one. HTTP/2 is not concerned: it asks by pings whether somebody is there.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::rt;
use hyper_util::rt::TokioTimer;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

/// How long a listener waits for its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waits {
    /// From the first byte of a head to its end.
    pub(crate) head: Duration,
    /// From the end of an answer to the first byte of the next head.
    pub(crate) idle: Duration,
}

impl Default for Waits {
    /// Envoy's `idle_timeout`, which is Istio's. Its limit for heads is off; ours is nginx' `client_header_timeout`.
    fn default() -> Self {
        Self { head: Duration::from_secs(60), idle: Duration::from_secs(3_600) }
    }
}

/// The timer of one connection, as hyper asks for it.
#[derive(Clone, Debug)]
pub(crate) struct HeadTimer {
    waits: Waits,
    seen: Arc<Seen>,
}

/// What has come by the connection.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Anything since the wait for a head began.
    bytes: AtomicBool,
    /// There was a wait for a head. Of the first one some has come already: by it one knows that it is HTTP/1.1.
    waited: AtomicBool,
}

pin_project! {
    struct HeadSleep {
        #[pin]
        sleep: Sleep,
        has_begun: bool,
        head: Duration,
        seen: Arc<Seen>,
    }
}

// === impl HeadTimer ===

impl HeadTimer {
    pub(crate) fn new(waits: Waits) -> Self {
        Self { waits, seen: Arc::default() }
    }

    /// To be told of what is read.
    pub(crate) fn seen(&self) -> Arc<Seen> {
        self.seen.clone()
    }
}

impl rt::Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        TokioTimer::new().sleep(duration)
    }

    /// hyper asks by it for the time of a head, when it begins to wait for one. The deadline is that of
    /// `header_read_timeout`, and ours is known without it.
    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn rt::Sleep>> {
        let Waits { head, idle } = self.waits;
        let has_begun = !self.seen.waited.swap(true, Ordering::Relaxed);
        self.seen.bytes.store(false, Ordering::Relaxed);
        let sleep = sleep(if has_begun { head } else { idle });
        Box::pin(HeadSleep { sleep, has_begun, head, seen: self.seen.clone() })
    }
}

// === impl Seen ===

impl Seen {
    /// Something was read. Whoever reads also polls the time that is left, in the same task.
    pub(crate) fn something(&self) {
        self.bytes.store(true, Ordering::Relaxed);
    }
}

// === impl HeadSleep ===

impl rt::Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if !*this.has_begun && this.seen.bytes.load(Ordering::Relaxed) {
            *this.has_begun = true;
            this.sleep.set(sleep(*this.head));
        }
        this.sleep.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use hyper::{body::Incoming, service::service_fn};
    use hyper_util::{
        rt::{TokioExecutor, TokioIo},
        server::conn::auto,
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::timeout,
    };

    use super::*;
    use crate::first_bytes::FirstBytes;

    const WAITS: Waits = Waits { head: Duration::from_secs(60), idle: Duration::from_secs(3_600) };
    const WHOLE: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    const HALF: &[u8] = b"GET / HTTP/1.1\r\nho";

    /// A client of a server with two limits, or with hyper's one.
    fn serve(hypers: Option<Duration>) -> DuplexStream {
        let (near, far) = duplex(1_024);
        tokio::spawn(async move {
            let hello =
                async |_: Request<Incoming>| Ok::<_, Infallible>(Response::new(String::new()));
            let timer = HeadTimer::new(WAITS);
            let io = FirstBytes::new(TokioIo::new(far), WAITS.head, timer.seen());
            let mut protocol = auto::Builder::new(TokioExecutor::new());
            match hypers {
                Some(limit) => protocol.http1().timer(TokioTimer::new()).header_read_timeout(limit),
                None => protocol.http1().timer(timer).header_read_timeout(WAITS.idle),
            };
            drop(protocol.serve_connection(io, service_fn(hello)).await);
        });
        near
    }

    async fn asked(client: &mut DuplexStream) {
        client.write_all(WHOLE).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(client.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    }

    /// Whether the server lets it go within so many seconds.
    async fn is_let_go(client: &mut DuplexStream, seconds: u64) -> bool {
        let read = timeout(Duration::from_secs(seconds), client.read(&mut [0; 1])).await;
        read.is_ok_and(|read| read.unwrap() == 0)
    }

    /// How a client of an hour fares who waits, and then begins a head that has no end.
    async fn slow(hypers: Option<Duration>) -> [bool; 4] {
        let mut client = serve(hypers);
        asked(&mut client).await;
        let while_idle = is_let_go(&mut client, 3_500).await;
        if while_idle {
            return [true; 4];
        }
        asked(&mut client).await;
        let until_the_end = is_let_go(&mut client, 3_500).await;
        client.write_all(HALF).await.unwrap();
        let in_its_head = is_let_go(&mut client, 59).await;
        client.write_all(b"s").await.unwrap();
        [while_idle, until_the_end, in_its_head, is_let_go(&mut client, 2).await]
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_caller_keeps_his_place_and_a_slow_one_does_not() {
        assert_eq!(slow(None).await, [false, false, false, true]);
        let twins = [WAITS.head, WAITS.idle].map(Some);
        assert_eq!(slow(twins[0]).await, [true; 4], "the broken twin: an idle one is let go");
        assert_eq!(slow(twins[1]).await, [false; 4], "the broken twin: a slow one is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn idleness_has_an_end_too() {
        let mut client = serve(None);
        asked(&mut client).await;
        assert!(!is_let_go(&mut client, 3_599).await);
        assert!(is_let_go(&mut client, 2).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_head_has_the_time_of_a_head() {
        for first in [&b""[..], b"G", HALF] {
            let mut client = serve(None);
            client.write_all(first).await.unwrap();
            assert!(!is_let_go(&mut client, 59).await, "{first:?}");
            assert!(is_let_go(&mut client, 61).await, "{first:?}");
        }
    }
}
