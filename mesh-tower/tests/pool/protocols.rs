//! Both protocols at one endpoint.

use http::{Response, Version};
use mesh_core::limit;
use mesh_tower::pool::Config;

use crate::support::*;

/// The one connection that there may be speaks the other protocol, and rests.
#[tokio::test]
async fn a_connection_of_the_other_protocol_is_not_waited_for() {
    for order in [
        [Version::HTTP_11, Version::HTTP_2, Version::HTTP_11],
        [Version::HTTP_2, Version::HTTP_11, Version::HTTP_2],
    ] {
        let server = Server::start(|_| async { Response::new(full("hello")) }).await;
        let limits = limit::Config::unlimited().with_max_connections(1);
        let group = group(limits, Config::default());
        let pool = server.pool(&group);
        for version in order {
            let mut one = request("/");
            *one.version_mut() = version;
            let sent = tokio::time::timeout(PATIENCE, send(&pool, one));
            let response = sent.await.unwrap_or_else(|_| panic!("{version:?} of {order:?} hangs"));
            assert_eq!(text(response.unwrap()).await.unwrap(), "hello");
        }
        assert_eq!(connections(&group), 2, "one of each protocol");
        drop(pool);
        eventually("all is given back", || connections(&group) == 0).await;
    }
}
