//! Who this proxy is, whom it turned away, and who still speaks plaintext.

use std::fmt::{self, Write};

use mesh_tls::{MeshTls, PlaintextSource, RefusedCaller, ServerMode, Stats};

use super::html::{Date, Span, Text};

/// An identity, as it is shown.
pub(crate) struct Identity {
    name: String,
    certificate: Option<Certificate>,
    last_error: Option<String>,
    stats: Stats,
    plaintext: Vec<PlaintextSource>,
    refused: Vec<RefusedCaller>,
}

/// Dates in seconds since 1970.
struct Certificate {
    id: String,
    trust_domain: String,
    serial: String,
    not_before: u64,
    not_after: u64,
}

/// How far a certificate is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Good,
    /// It should have been renewed.
    Late,
    Over,
}

/// Peers renew at 50 to 90 % of a certificate's life; the log warns from here on too.
const LATE_PERCENT: u64 = 80;

impl Identity {
    pub(crate) fn of(name: &str, identity: &MeshTls) -> Self {
        let status = identity.status();
        let certificate = status.identity.map(|own| Certificate {
            id: own.id().to_string(),
            trust_domain: own.id().trust_domain().to_string(),
            serial: own.serial().to_owned(),
            not_before: own.not_before().as_secs(),
            not_after: own.not_after().as_secs(),
        });
        Self {
            name: name.to_owned(),
            certificate,
            last_error: status.last_error,
            stats: identity.stats(),
            plaintext: identity.plaintext_sources(),
            refused: identity.refused_callers(),
        }
    }

    /// What an operator must not overlook.
    pub(super) fn alarms(&self, now: u64) -> Vec<String> {
        let name = &self.name;
        let mut alarms = Vec::new();
        match &self.certificate {
            None => alarms.push(format!("{name} has no identity: every handshake fails.")),
            Some(own) if own.stage(now) == Stage::Over => alarms.push(format!(
                "The certificate of {name} expired {} ago: peers refuse it, and it connects to nobody. Look at what \
                 renews it.",
                Span(now.saturating_sub(own.not_after))
            )),
            Some(_) => {}
        }
        if let Some(error) = &self.last_error {
            let kept = match self.certificate {
                Some(_) => "; the last good one stays in use",
                None => "",
            };
            alarms.push(format!("The identity of {name} was not updated{kept}: {error}"));
        }
        alarms
    }

    pub(super) fn write(&self, out: &mut String, is_own: bool, now: u64) -> fmt::Result {
        let class = if is_own { "card own" } else { "card" };
        let name = if is_own { "this proxy" } else { &self.name };
        write!(out, "<article class=\"{class}\"><h3>{}</h3>", Text(name))?;
        match &self.certificate {
            Some(own) => own.write(out, now)?,
            None => out.write_str("<p class=\"dot bad\">no identity</p>")?,
        }
        out.write_str("<dl>")?;
        let mut fact = |what: &str, value: fmt::Arguments<'_>| {
            write!(out, "<div><dt>{what}</dt><dd>{}</dd></div>", Text(value))
        };
        if let Some(own) = &self.certificate {
            fact("trust domain", format_args!("{}", own.trust_domain))?;
            fact("generation", format_args!("{}", self.stats.generation))?;
        }
        let Stats { accepted, accepted_plaintext, connected, updates_refused, .. } = self.stats;
        let sum = |all: &[(&str, u64)]| all.iter().map(|(_, count)| count).sum::<u64>();
        let refused = sum(&callers(&self.stats));
        fact(
            "callers",
            format_args!(
                "{accepted} by mutual TLS, {accepted_plaintext} in plaintext, {refused} refused"
            ),
        )?;
        // Others stand here for comparison; the rest about them is in /certs.
        if is_own {
            let failed = sum(&servers(&self.stats));
            fact("servers", format_args!("{connected} by mutual TLS, {failed} failed"))?;
            let taken = self.stats.rotations;
            fact("updates", format_args!("{taken} taken, {updates_refused} refused"))?;
            if let Some(own) = &self.certificate {
                fact("serial", format_args!("{}", own.serial))?;
            }
        }
        out.write_str("</dl></article>")
    }

    /// Rows of who was turned away and why; whether there were any.
    pub(super) fn write_refused(&self, out: &mut String) -> Result<bool, fmt::Error> {
        let (callers, servers) = (callers(&self.stats), servers(&self.stats));
        let ended = ended(&self.stats);
        let mut any = false;
        for (who, all) in [("caller", &callers[..]), ("server", &servers), ("connection", &ended)] {
            for (why, count) in all.iter().filter(|(_, count)| *count > 0) {
                any = true;
                refused_row(out, &self.name, who, why, *count)?;
            }
        }
        Ok(any)
    }

    /// Rows of where those came from who were refused last.
    pub(super) fn write_callers(&self, out: &mut String, now: u64) -> fmt::Result {
        for caller in &self.refused {
            let from = caller.address.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string());
            write!(
                out,
                "<tr><td data-label=\"from\">{from}</td><td data-label=\"why\">{}</td><td data-label=\"at\">{}</td>\
                 <td class=\"number\" data-label=\"how often\">{}</td>\
                 <td class=\"number\" data-label=\"last seen\">{} ago</td></tr>",
                Text(&caller.reason),
                Text(&self.name),
                caller.connections,
                Span(now.saturating_sub(caller.last_seen.as_secs())),
            )?;
        }
        Ok(())
    }

    /// Rows of who was let in without a proof; whether there were any.
    pub(super) fn write_plaintext(&self, out: &mut String, now: u64) -> Result<bool, fmt::Error> {
        for source in &self.plaintext {
            let from = match source.network {
                Some(network) => format!("{network}/{}", source.prefix),
                None => "unknown".to_owned(),
            };
            let to = source.listener.map(|to| to.to_string()).unwrap_or_default();
            let most = if source.error > 0 { "at most " } else { "" };
            write!(
                out,
                "<tr><td data-label=\"from\">{from}</td><td data-label=\"to\">{to}</td><td data-label=\"at\">{}</td>\
                 <td class=\"number\" data-label=\"connections\">{most}{}</td>\
                 <td class=\"number\" data-label=\"last seen\">{} ago</td></tr>",
                Text(&self.name),
                source.connections,
                Span(now.saturating_sub(source.last_seen.as_secs())),
            )?;
        }
        Ok(!self.plaintext.is_empty())
    }
}

impl Certificate {
    fn stage(&self, now: u64) -> Stage {
        let (life, age) = (self.life(), now.saturating_sub(self.not_before));
        match () {
            () if now >= self.not_after => Stage::Over,
            () if age >= life / 100 * LATE_PERCENT + life % 100 * LATE_PERCENT / 100 => Stage::Late,
            () => Stage::Good,
        }
    }

    fn life(&self) -> u64 {
        self.not_after.saturating_sub(self.not_before)
    }

    fn write(&self, out: &mut String, now: u64) -> fmt::Result {
        let left = self.not_after.saturating_sub(now);
        let percent = 100.0 * left as f64 / self.life().max(1) as f64;
        let percent = percent.min(100.0);
        let stage = self.stage(now);
        let (class, words) = match stage {
            Stage::Good => ("good", format!("{} left", Span(left))),
            Stage::Late => ("late", format!("{} left, and not renewed yet", Span(left))),
            Stage::Over => ("bad", format!("expired {} ago", Span(now - self.not_after))),
        };
        // One that is over has a full bar in the colour of an alarm: an empty one looks like nothing at all.
        let width = if stage == Stage::Over { 100.0 } else { percent };
        write!(
            out,
            "<p class=\"id\">{}</p><div class=\"bar {class}\" role=\"img\" aria-label=\"{percent:.0} % of the certificate's \
             life is left\"><i style=\"width:{width:.1}%\"></i></div>\
             <p><b class=\"dot {class}\">{words}</b> <span class=\"dim\">{} {}, until {}</span></p>",
            Text(&self.id),
            if stage == Stage::Over { "after" } else { "of" },
            Span(self.life()),
            Date(self.not_after),
        )
    }
}

/// A row of the table of refusals.
pub(super) fn refused_row(
    out: &mut String,
    at: &str,
    who: &str,
    why: &str,
    count: u64,
) -> fmt::Result {
    write!(
        out,
        "<tr><td data-label=\"who\">{who}</td><td data-label=\"why\">{why}</td><td data-label=\"at\">{}</td>\
         <td class=\"number\" data-label=\"how often\">{count}</td></tr>",
        Text(at)
    )
}

/// What a mode means for those who come.
pub(super) fn in_words(mode: Option<ServerMode>) -> &'static str {
    match mode {
        Some(ServerMode::Strict) => {
            "The inbound listener is STRICT: who proves no identity is refused."
        }
        Some(ServerMode::Permissive) => {
            "The inbound listener is PERMISSIVE: callers without an identity are let in. Once none of them comes any more, \
             STRICT is safe."
        }
        Some(ServerMode::Disabled) => {
            "The inbound listener speaks plaintext only (DISABLE): nobody proves an identity."
        }
        Some(_) | None => "",
    }
}

fn callers(stats: &Stats) -> [(&'static str, u64); 10] {
    [
        ("spoke plaintext, where mutual TLS is wanted", stats.refused_plaintext),
        ("showed no certificate", stats.refused_no_certificate),
        ("its certificate has expired, or is not valid yet", stats.refused_expired),
        ("its certificate is from an authority that we do not trust", stats.refused_unknown_issuer),
        ("its certificate breaks a rule, or its signature is wrong", stats.refused_bad_certificate),
        ("is not among those who may call", stats.refused_not_authorized),
        ("took too long for the handshake", stats.refused_timeout),
        ("came while we had no identity", stats.refused_not_ready),
        ("made room for others: too many handshakes at once", stats.refused_crowded_out),
        ("broke off, or speaks no common protocol", stats.refused_other),
    ]
}

fn servers(stats: &Stats) -> [(&'static str, u64); 5] {
    [
        ("its certificate proves nothing", stats.connect_untrusted),
        ("is somebody else than who may answer", stats.connect_not_authorized),
        ("rejected our certificate", stats.connect_rejected_by_peer),
        ("was not connected to: we have no identity that is valid", stats.connect_not_ready),
        ("was not reached, or speaks no common protocol", stats.connect_other),
    ]
}

fn ended(stats: &Stats) -> [(&'static str, u64); 5] {
    [
        ("ended: its peer is not trusted any more", stats.drained_untrusted),
        ("ended: its peer may not call any more", stats.drained_not_authorized),
        ("ended: it proved nothing, and the mode became STRICT", stats.drained_no_proof),
        ("ended: it was too old", stats.drained_age),
        ("ended: its peer's certificate has expired", stats.drained_expired),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(not_before: u64, not_after: u64) -> Identity {
        let certificate = Certificate {
            id: "spiffe://shop.example/sa/cart".to_owned(),
            trust_domain: "shop.example".to_owned(),
            serial: "01".to_owned(),
            not_before,
            not_after,
        };
        Identity {
            name: "proxy".to_owned(),
            certificate: Some(certificate),
            last_error: None,
            stats: Stats::default(),
            plaintext: Vec::new(),
            refused: Vec::new(),
        }
    }

    fn shown(identity: &Identity, now: u64) -> String {
        let mut out = String::new();
        identity.write(&mut out, true, now).unwrap();
        out
    }

    #[test]
    fn time_that_is_left_is_seen_and_its_end_is_an_alarm() {
        let identity = identity(1_000, 4_600);
        for (now, class, words, is_alarm) in [
            (0, "good", "1 h 16 min left<", false),
            (1_000, "good", "1 h left<", false),
            (3_879, "good", "12 min 1 s left<", false),
            (3_880, "late", "12 min left, and not renewed yet<", false),
            (4_599, "late", "1 s left, and not renewed yet<", false),
            (4_600, "bad", "expired 0 s ago<", true),
            (8_260, "bad", "expired 1 h 1 min ago<", true),
        ] {
            let page = shown(&identity, now);
            assert!(page.contains(&format!("<div class=\"bar {class}\"")), "{now}: {page}");
            assert!(page.contains(&format!("dot {class}\">{words}")), "{now}: {page}");
            assert_eq!(!identity.alarms(now).is_empty(), is_alarm, "{now}");
        }
        assert!(shown(&identity, 2_800).contains("style=\"width:50.0%\""));
        assert!(shown(&identity, 9_999).contains("style=\"width:100.0%\""));
    }

    #[test]
    fn an_identity_that_is_gone_or_not_updated_is_an_alarm() {
        let mut identity = identity(0, 100);
        identity.last_error = Some("tls.key: <denied>".to_owned());
        let alarms = identity.alarms(1);
        assert!(alarms[0].ends_with("the last good one stays in use: tls.key: <denied>"));
        identity.certificate = None;
        assert!(identity.alarms(1)[0].contains("no identity"));
        assert!(shown(&identity, 1).contains("no identity"));
    }

    #[test]
    fn every_refusal_is_shown_with_its_reason_and_no_other() {
        let rows = |stats: Stats| {
            let mut identity = identity(0, 100);
            identity.stats = stats;
            let mut out = String::new();
            let any = identity.write_refused(&mut out).unwrap();
            assert_eq!(any, !out.is_empty());
            out.matches("<tr>").count()
        };
        assert_eq!(rows(Stats::default()), 0);
        let mut stats = Stats::default();
        (stats.refused_plaintext, stats.connect_untrusted, stats.drained_age) = (1, 2, 3);
        assert_eq!(rows(stats), 3);
        // What went well is no refusal.
        let mut stats = Stats::default();
        (stats.accepted, stats.accepted_plaintext, stats.connected) = (1, 2, 3);
        assert_eq!(rows(stats), 0);
    }
}
