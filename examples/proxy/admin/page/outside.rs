//! Servers outside the mesh: by whose word they are believed, and what is shown to them.

use std::fmt::{self, Write};

use mesh_tls::{Stats, origination::Status};

use super::html::{Date, Span, Text};

/// What an operator must not overlook.
pub(super) fn alarms(status: &Status, now: u64) -> Vec<String> {
    let name = &status.name;
    let mut alarms = Vec::new();
    let end = status.certificate.as_ref().map(|own| own.not_after.as_secs());
    if let Some(end) = end.filter(|end| *end <= now) {
        let ago = Span(now - end);
        alarms.push(format!(
            "The certificate that is shown to {name} expired {ago} ago. Look at what renews it."
        ));
    }
    if let Some(error) = &status.last_error {
        alarms.push(format!(
            "What is believed of {name} was not updated; the last good one stays in use: {error}"
        ));
    }
    alarms
}

pub(super) fn write(out: &mut String, all: &[(Status, Stats)], now: u64) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<h2>Servers outside the mesh</h2><table><colgroup><col style=\"width:22%\"><col><col style=\"width:30%\">\
         <col style=\"width:10%\"><col style=\"width:8%\"><col style=\"width:8%\"></colgroup><thead><tr><th>upstream</th>\
         <th>believed by</th><th>is shown</th><th class=\"number\">generation</th><th class=\"number\">connected</th>\
         <th class=\"number\">failed</th></tr></thead><tbody>"
    )?;
    all.iter().try_for_each(|(status, stats)| row(out, status, stats, now))?;
    writeln!(out, "</tbody></table>")
}

fn row(out: &mut String, status: &Status, stats: &Stats, now: u64) -> fmt::Result {
    let roots = &status.roots;
    write!(
        out,
        "<tr><td data-label=\"upstream\">{}</td><td data-label=\"believed by\"><span>roots: {}<small>{} of them",
        Text(&status.name),
        Text(&roots.from),
        roots.count
    )?;
    if let Some(next) = roots.next_not_after {
        write!(out, ", the next one ends {}", Date(next.as_secs()))?;
    }
    write!(out, "</small>")?;
    if let Some(crl) = &status.crl {
        write!(out, "<small>revocation lists: {}</small>", crl.count)?;
    }
    write!(out, "</span></td><td data-label=\"is shown\"><span>")?;
    match &status.certificate {
        None => write!(out, "nothing")?,
        Some(own) => {
            let left = own.not_after.as_secs().saturating_sub(now);
            let class = if left == 0 { "bad" } else { "good" };
            let words = if left == 0 { "expired" } else { "left" };
            let names = own.names.first().unwrap_or(&own.subject);
            write!(
                out,
                "{}<small class=\"dot {class}\">{} {words}, until {}</small>",
                Text(names),
                Span(if left == 0 { now - own.not_after.as_secs() } else { left }),
                Date(own.not_after.as_secs())
            )?;
        }
    }
    let failed = stats.connect_untrusted
        + stats.connect_rejected_by_peer
        + stats.connect_not_ready
        + stats.connect_other;
    write!(
        out,
        "</span></td><td class=\"number\" data-label=\"generation\">{}</td>\
         <td class=\"number\" data-label=\"connected\">{}</td><td class=\"number\" data-label=\"failed\">{failed}</td></tr>",
        status.generation, stats.connected
    )
}
