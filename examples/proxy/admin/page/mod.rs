//! The page of the admin listener: who this proxy is, whom it turned away, how its endpoints are.
//!
//! It is made here as a whole, so it is right without a script, and then asks for itself every two seconds. The script asks
//! each second, and adds what takes two looks: how many attempts a second. Nothing comes from elsewhere.

mod html;
mod identity;
mod outside;
mod upstreams;

use std::fmt::{self, Write};

use mesh_tls::{ServerMode, Stats, origination::Status};

use self::html::Text;
pub(super) use self::identity::Identity;
use crate::transport::Mesh;

/// What it shows.
pub(super) struct Page {
    pub(super) is_draining: bool,
    /// Our own is the first.
    pub(super) identities: Vec<Identity>,
    /// Of the inbound listener, where it can do TLS.
    pub(super) mode: Option<ServerMode>,
    /// Requests that a policy refused, if there are inbound ones.
    pub(super) denied: Option<u64>,
    pub(super) upstreams: Vec<Mesh>,
    /// The application behind the inbound listener.
    pub(super) local: Option<Mesh>,
    /// Of servers outside the mesh.
    pub(super) outside: Vec<(Status, Stats)>,
    /// Why the configuration as it is now is not in force.
    pub(super) rejected: Option<String>,
    /// Seconds since 1970.
    pub(super) now: u64,
}

impl Page {
    pub(super) fn render(&self) -> String {
        let mut out = String::from(concat!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>mesh-proxy</title>\n",
            "<noscript><meta http-equiv=\"refresh\" content=\"2\"></noscript>\n<style>\n",
            include_str!("style.css"),
            "</style>\n</head>\n<body>\n<main>\n",
        ));
        // Writing to a String cannot fail.
        _ = self.write(&mut out);
        out.push_str(concat!(
            "</main>\n<footer class=\"dim\"><a href=\"/clusters\">/clusters</a> (<a ",
            "href=\"/clusters?format=json\">json</a>) · <a href=\"/config\">/config</a> · <a href=\"/certs\">/certs</a> · <a ",
            "href=\"/metrics\">/metrics</a> · <a href=\"/ready\">/ready</a> · counts are since the start</footer>\n<script>\n",
            include_str!("script.js"),
            "</script>\n</body>\n</html>\n",
        ));
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let (class, state) = match self.is_draining {
            true => ("late", "draining: nothing new is accepted"),
            false => ("good", "ready"),
        };
        writeln!(
            out,
            "<header><h1>mesh-proxy</h1><span id=\"state\" class=\"dot {class}\">{state}</span></header>"
        )?;
        let rejected = self.rejected.as_ref();
        let rejected = rejected.map(|why| {
            format!("The configuration was rejected; the last good one stays in force:\n{why}")
        });
        let expired = self.identities.iter().flat_map(|identity| identity.alarms(self.now));
        let outside = self.outside.iter().flat_map(|(status, _)| outside::alarms(status, self.now));
        for alarm in rejected.into_iter().chain(expired).chain(outside) {
            writeln!(out, "<p class=\"alarm\" role=\"alert\">{}</p>", Text(alarm))?;
        }
        self.identities(out)?;
        self.refused(out)?;
        self.plaintext(out)?;
        outside::write(out, &self.outside, self.now)?;
        writeln!(out, "<h2>Upstreams</h2>")?;
        if self.upstreams.is_empty() {
            writeln!(out, "<p class=\"dim\">There are none.</p>")?;
        }
        self.upstreams.iter().try_for_each(|mesh| upstreams::write(out, mesh))?;
        if let Some(local) = &self.local {
            writeln!(out, "<h2>Application</h2><p class=\"dim\">Behind the inbound listener.</p>")?;
            upstreams::write(out, local)?;
        }
        Ok(())
    }

    fn identities(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "<h2>Identity</h2>")?;
        if self.identities.is_empty() {
            return writeln!(
                out,
                "<p class=\"dot late\">none: this proxy proves nothing, and can ask nobody for a proof (identity in \
                 proxy.yaml)</p>"
            );
        }
        write!(out, "<div class=\"cards\">")?;
        for (index, identity) in self.identities.iter().enumerate() {
            identity.write(out, index == 0, self.now)?;
        }
        writeln!(out, "</div>")
    }

    fn refused(&self, out: &mut String) -> fmt::Result {
        let mut rows = String::new();
        let mut any = false;
        for identity in &self.identities {
            any |= identity.write_refused(&mut rows)?;
        }
        if let Some(denied) = self.denied.filter(|denied| *denied > 0) {
            any = true;
            identity::refused_row(
                &mut rows,
                "inbound",
                "request",
                "no policy allows it, or one denies it",
                denied,
            )?;
        }
        writeln!(out, "<h2>Refused</h2>")?;
        if !any {
            return writeln!(out, "<p class=\"dim\">Nobody so far.</p>");
        }
        writeln!(
            out,
            "<table><colgroup><col style=\"width:12%\"><col><col style=\"width:20%\"><col style=\"width:12%\"></colgroup>\
             <thead><tr><th>who</th><th>why</th><th>at</th><th class=\"number\">how often</th></tr></thead>\
             <tbody>{rows}</tbody></table>"
        )?;
        let mut callers = String::new();
        self.identities
            .iter()
            .try_for_each(|identity| identity.write_callers(&mut callers, self.now))?;
        if callers.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "<h3>Callers refused last</h3><table><colgroup><col style=\"width:22%\"><col><col style=\"width:14%\">\
             <col style=\"width:10%\"><col style=\"width:16%\"></colgroup><thead><tr><th>from</th><th>why</th><th>at</th>\
             <th class=\"number\">how often</th><th class=\"number\">last seen</th></tr></thead>\
             <tbody>{callers}</tbody></table>"
        )
    }

    fn plaintext(&self, out: &mut String) -> fmt::Result {
        let mut rows = String::new();
        let mut any = false;
        for identity in &self.identities {
            any |= identity.write_plaintext(&mut rows, self.now)?;
        }
        if self.mode.is_none() && !any {
            return Ok(());
        }
        writeln!(out, "<h2>Plaintext let in</h2>")?;
        let words = identity::in_words(self.mode);
        if !words.is_empty() {
            writeln!(out, "<p>{words}</p>")?;
        }
        if !any {
            return writeln!(out, "<p class=\"dim\">Nobody so far.</p>");
        }
        writeln!(
            out,
            "<table><colgroup><col><col><col style=\"width:20%\"><col style=\"width:12%\"><col style=\"width:16%\">\
             </colgroup><thead><tr><th>from</th><th>to</th><th>at</th><th class=\"number\">connections</th>\
             <th class=\"number\">last seen</th></tr></thead><tbody>{rows}</tbody></table>"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Page {
        Page {
            is_draining: false,
            identities: Vec::new(),
            mode: None,
            denied: None,
            upstreams: Vec::new(),
            local: None,
            outside: Vec::new(),
            rejected: None,
            now: 0,
        }
    }

    #[test]
    fn a_proxy_without_anything_says_so() {
        let page = empty().render();
        for words in ["none: this proxy proves nothing", "Nobody so far", "There are none"] {
            assert!(page.contains(words), "{words:?} is not in\n{page}");
        }
        assert!(!page.contains("<h2>Plaintext"), "there is nobody who could come");
    }

    #[test]
    fn what_is_wrong_stands_on_top_and_is_no_markup() {
        let page = Page { rejected: Some("a.yaml:1: <script>".into()), ..empty() }.render();
        let at = |words: &str| page.find(words).unwrap_or_else(|| panic!("{words:?}\n{page}"));
        assert!(at("a.yaml:1: &lt;script&gt;") < at("<h2>Identity"));
    }

    #[test]
    fn refusals_by_policy_stand_beside_those_by_tls() {
        let denied = |denied| Page { denied, ..empty() }.render().contains("no policy allows it");
        assert_eq!([None, Some(0), Some(3)].map(denied), [false, false, true]);
    }

    #[test]
    fn what_plaintext_means_depends_on_the_mode() {
        let page = |mode| Page { mode: Some(mode), ..empty() }.render();
        assert!(page(ServerMode::Strict).contains("is STRICT"));
        assert!(page(ServerMode::Permissive).contains("STRICT is safe"));
    }
}
