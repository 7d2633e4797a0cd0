//! Configurations that change while requests fly.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use mesh_core::Labels;
use mesh_tower::upstream::{Config, Policy, Upstream};
use tower::ServiceExt;

use crate::support::*;

/// The subset of the same name is another one, with other machines: what a request of the old one learns of the new
/// one's endpoints must not be booked with the old one's.
#[tokio::test(start_paused = true)]
async fn a_subset_that_went_and_came_back_has_its_own_books() {
    let v1: Labels = [("version", "v1")].into_iter().collect();
    let without = Config::new("shop").with_retry(retrying());
    let policy = Policy::default().with_outlier(ejecting_at_once());
    let with =
        without.clone().with_subset("v1", v1, Some(policy)).with_split(vec![("v1".into(), 1)]);
    let upstream = Arc::new(OnceLock::<Upstream<Make>>::new());
    let (inner, configs) = (upstream.clone(), (without, with.clone()));
    let script = make(move |_, attempt| {
        if attempt == 0 {
            // The first attempt is under way when the subset goes and comes back.
            let upstream = inner.get().unwrap();
            upstream.set_config(configs.0.clone()).unwrap();
            upstream.set_config(configs.1.clone()).unwrap();
        }
        500
    });
    let (built, driver) = Upstream::from_config(with)
        .endpoints(endpoints(&["a:1", "b:1"]).into_iter().map(|e| e.with_label("version", "v1")))
        .build(script)
        .unwrap();
    upstream.set(built).unwrap();
    tokio::spawn(driver);
    let upstream = upstream.get().unwrap();
    let send = || async { upstream.clone().oneshot(request()).await.map(|r| r.status().as_u16()) };
    let out = || upstream.status().iter().filter(|endpoint| !endpoint.is_healthy()).count();

    assert_eq!(send().await.unwrap(), 500);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(out(), 0);
    assert_eq!(send().await.unwrap(), 500);
    assert_eq!(out(), 2, "both attempts failed, and detection still works");
}
