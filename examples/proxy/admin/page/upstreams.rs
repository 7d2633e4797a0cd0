//! The upstreams, and how each of their endpoints is.

use std::fmt::{self, Write};

use mesh_tower::upstream::{EndpointStatus, Life};

use super::html::Text;
use crate::{admin::clusters::shown, transport::Mesh};

/// The columns; those of the class `live` only the script can fill.
const HEAD: &str = "<colgroup><col style=\"width:23%\"><col style=\"width:25%\"><col class=\"live\" style=\"width:10%\">\
    <col class=\"live\" style=\"width:9%\"><col style=\"width:6%\"><col style=\"width:7%\"><col style=\"width:6%\">\
    <col style=\"width:6%\"><col style=\"width:8%\"></colgroup>\
    <thead><tr><th>endpoint</th><th>state</th><th class=\"number live\">attempts/s</th><th class=\"live\">share</th>\
    <th class=\"number\">active</th><th class=\"number\">ok</th><th class=\"number\">failed</th>\
    <th class=\"number\">ejected</th><th class=\"number\">latency</th></tr></thead>";

pub(super) fn write(out: &mut String, mesh: &Mesh) -> fmt::Result {
    let config = mesh.config();
    write!(out, "<h3>{} <small>", Text(mesh.name()))?;
    match config.split() {
        [] => {}
        [(subset, _)] => write!(out, "subset {}", Text(subset))?,
        split => {
            let all: u64 = split.iter().map(|(_, weight)| u64::from(*weight)).sum();
            for (index, (subset, weight)) in split.iter().enumerate() {
                let comma = if index > 0 { ", " } else { "" };
                let percent = 100.0 * f64::from(*weight) / all.max(1) as f64;
                write!(out, "{comma}subset {} {percent:.1} %", Text(subset))?;
            }
        }
    }
    write!(out, "</small></h3>")?;
    let endpoints = shown(mesh);
    if endpoints.is_empty() {
        return write!(
            out,
            "<p class=\"dot bad\">no endpoints: requests are refused (503, UH)</p>"
        );
    }
    write!(out, "<table class=\"endpoints\">{HEAD}<tbody>")?;
    endpoints.iter().try_for_each(|status| endpoint(out, mesh.name(), status))?;
    write!(out, "</tbody></table>")
}

fn endpoint(out: &mut String, upstream: &str, status: &EndpointStatus) -> fmt::Result {
    let address = status.endpoint.address();
    let total = status.successes + status.failures;
    write!(
        out,
        "<tr data-key=\"{}|{}|{}\" data-total=\"{total}\"><td data-label=\"endpoint\"><span>{}",
        Text(upstream),
        Text(&status.subset),
        Text(address),
        Text(address)
    )?;
    let labels = status.endpoint.labels().to_string();
    let place = status.endpoint.locality().to_string();
    for more in [labels, place].iter().filter(|more| !more.is_empty()) {
        write!(out, "<small>{}</small>", Text(more))?;
    }
    let (class, mut state) = (class(status.life), status.life.to_string());
    if let Some(ejection) = &status.ejection {
        let why = ejection.detector.map(|why| format!(" by {why}")).unwrap_or_default();
        state = format!("ejected{why}, back in {:.0} s", ejection.left.as_secs_f64().ceil());
    } else if let Some(breaker) = &status.breaker {
        _ = write!(state, ", breaker {}", breaker.state);
    }
    let latency = match total {
        // Of one that was never asked, only that of its neighbours is known.
        0 => "–".to_owned(),
        _ => format!("{:.1} ms", 1_000.0 * status.latency.as_secs_f64()),
    };
    write!(
        out,
        "</span></td><td data-label=\"state\" class=\"{class}\"><span class=\"dot\">{}</span></td>\
         <td data-label=\"attempts/s\" class=\"number live rate\">…</td>\
         <td data-label=\"share\" class=\"live\"><div class=\"bar\"><i style=\"width:0\"></i></div></td>\
         <td data-label=\"active\" class=\"number\">{}</td><td data-label=\"ok\" class=\"number\">{}</td>\
         <td data-label=\"failed\" class=\"number\">{}</td><td data-label=\"ejected\" class=\"number\">{} ×</td>\
         <td data-label=\"latency\" class=\"number\">{latency}</td></tr>",
        Text(&state),
        status.active,
        status.successes,
        status.failures,
        status.ejections,
    )
}

fn class(life: Life) -> &'static str {
    match () {
        () if life == Life::Ready => "good",
        () if [Life::Unwell, Life::Ejected].contains(&life) => "bad",
        () => "off",
    }
}
