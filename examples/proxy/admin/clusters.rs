//! Every endpoint of every upstream, with what the mesh knows of it.

use std::fmt::Write as _;

use mesh_tower::upstream::EndpointStatus;
use serde_json::{Value, json};

use crate::transport::Mesh;

/// Lines such as Envoy's: `payment-service|v1::10.0.0.7:8443::life::ready`.
pub(super) fn text(meshes: &[Mesh]) -> String {
    let mut text = String::new();
    for mesh in meshes {
        for status in shown(mesh) {
            let cluster = match &*status.subset {
                "" => mesh.name().to_owned(),
                subset => format!("{}|{subset}", mesh.name()),
            };
            let mut line = |field: &str, value: &dyn std::fmt::Display| {
                // Writing to a String cannot fail.
                _ = writeln!(text, "{cluster}::{}::{field}::{value}", status.endpoint.address());
            };
            line("life", &status.life);
            if let Some(ejection) = &status.ejection {
                let reason = ejection.detector.map_or_else(String::new, |why| why.to_string());
                line("ejected_by", &reason);
                line("ejected_for_ms", &ejection.left.as_millis());
            }
            if let Some(breaker) = &status.breaker {
                line("breaker", &breaker.state);
            }
            line("active", &status.active);
            line("successes", &status.successes);
            line("failures", &status.failures);
            line("ejections", &status.ejections);
            line("latency_us", &status.latency.as_micros());
            line("weight", &status.endpoint.weight().get());
            line("labels", status.endpoint.labels());
            line("locality", status.endpoint.locality());
        }
    }
    text
}

/// The same for programs.
pub(super) fn json(meshes: &[Mesh]) -> String {
    let upstreams = meshes.iter().map(|mesh| {
        let config = mesh.config();
        json!({
            "upstream": mesh.name(),
            "split": config.split().iter().map(|(subset, weight)| json!({"subset": subset, "weight": weight})).collect::<Vec<_>>(),
            "endpoints": shown(mesh).iter().map(endpoint).collect::<Vec<_>>(),
        })
    });
    json!({ "upstreams": upstreams.collect::<Vec<_>>() }).to_string()
}

fn endpoint(status: &EndpointStatus) -> Value {
    json!({
        "address": &**status.endpoint.address(),
        "subset": &*status.subset,
        "life": status.life.as_str(),
        "ejection": status.ejection.as_ref().map(|ejection| json!({
            "detector": ejection.detector.map(|why| why.to_string()),
            "left_ms": u64::try_from(ejection.left.as_millis()).unwrap_or(u64::MAX),
        })),
        "breaker": status.breaker.as_ref().map(|breaker| breaker.state.to_string()),
        "active": status.active,
        "successes": status.successes,
        "failures": status.failures,
        "ejections": status.ejections,
        "latency_us": u64::try_from(status.latency.as_micros()).unwrap_or(u64::MAX),
        "weight": status.endpoint.weight().get(),
        "labels": status.endpoint.labels().to_string(),
        "locality": status.endpoint.locality().to_string(),
    })
}

/// An endpoint stands in its subsets and in the upstream as a whole. Those that get nothing are not shown: other subsets
/// are destinations of their own.
pub(crate) fn shown(mesh: &Mesh) -> Vec<EndpointStatus> {
    let config = mesh.config();
    let gets = |subset: &str| match config.split() {
        [] => subset.is_empty(),
        split => split.iter().any(|(name, weight)| name == subset && *weight > 0),
    };
    mesh.status().into_iter().filter(|status| gets(&status.subset)).collect()
}
