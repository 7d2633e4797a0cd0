//! What one sees: a picture that redraws itself on a terminal, else a line each second.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{IsTerminal, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mesh_tower::upstream::EndpointStatus;

use super::{
    summary::Summary,
    world::{SERVICE, World},
};

/// Lines of events that are kept in sight.
const EVENTS: usize = 8;

/// Draws the world.
pub(super) struct View {
    redraws: bool,
    colours: bool,
    names: BTreeMap<String, &'static str>,
    faulty: Arc<AtomicBool>,
    hints: Vec<String>,
    events: Vec<String>,
    /// What was seen last, to tell what has changed.
    ejected: BTreeMap<String, bool>,
    was_faulty: bool,
    /// The second and the requests of the last line.
    last: (u64, u64),
    rate: f64,
    rate_at: (Duration, u64),
}

impl View {
    pub(super) fn new(world: &World) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let mut hints = world.notes.clone();
        hints.push(format!("try  curl -i -H 'Host: {SERVICE}' http://{}/pay", world.outbound));
        hints.push(format!(
            "     curl http://{}/clusters    (also /certs, /metrics, /config, /ready)",
            world.admin
        ));
        hints.push(format!("open http://{}/ in a browser", world.admin));
        let view = Self {
            redraws: terminal,
            colours: terminal && std::env::var_os("NO_COLOR").is_none(),
            names: world.names.iter().map(|(address, name)| (address.to_string(), *name)).collect(),
            faulty: world.faulty.clone(),
            hints,
            events: Vec::new(),
            ejected: BTreeMap::new(),
            was_faulty: false,
            last: (0, 0),
            rate: 0.0,
            rate_at: (Duration::ZERO, 0),
        };
        if view.redraws {
            // A second screen, without a cursor, and lines that are cut instead of wrapped.
            print!("\x1b[?1049h\x1b[?25l\x1b[?7l");
        } else {
            println!("{}", view.hints.join("\n"));
        }
        view
    }

    /// Shows how things stand.
    pub(super) fn update(&mut self, age: Duration, summary: &Summary) {
        let news = self.news(age, summary);
        let requests = summary.caller.requests;
        let since = (age - self.rate_at.0.min(age)).as_secs_f64();
        if since >= 1.0 {
            self.rate = (requests - self.rate_at.1) as f64 / since;
            self.rate_at = (age, requests);
        }
        if self.redraws {
            self.events.extend(news);
            let surplus = self.events.len().saturating_sub(EVENTS);
            self.events.drain(..surplus);
            let picture = self.picture(summary);
            // Home, the picture, and clear what is below. A terminal that is gone needs no picture.
            print!("\x1b[H{picture}\x1b[J");
            drop(std::io::stdout().flush());
            return;
        }
        for event in news {
            println!("{event}");
        }
        if age.as_secs() > self.last.0 {
            println!("{}", self.line(summary));
            self.last = (age.as_secs(), requests);
        }
    }

    /// What has changed since the last look.
    fn news(&mut self, age: Duration, summary: &Summary) -> Vec<String> {
        let mut news = Vec::new();
        let mut tell = |what: String| news.push(format!("{:>6.1} s  {what}", age.as_secs_f64()));
        let faulty = self.faulty.load(Ordering::Relaxed);
        if faulty != self.was_faulty {
            self.was_faulty = faulty;
            tell(match faulty {
                true => "payment-v1-b begins to answer 503".into(),
                false => "payment-v1-b is healed".into(),
            });
        }
        for status in &summary.endpoints {
            let address = status.endpoint.address();
            let ejected = status.ejection.is_some();
            let before = self.ejected.insert(address.to_string(), ejected).unwrap_or(false);
            let name = self.names.get(&**address).copied().unwrap_or("an endpoint");
            match (&status.ejection, before) {
                (Some(ejection), false) => {
                    let why = ejection.detector.map(|why| format!(" by {why}")).unwrap_or_default();
                    tell(format!(
                        "{name} ejected{why} for {:.0} s",
                        ejection.left.as_secs_f64().ceil()
                    ));
                }
                (None, true) => tell(format!("{name} is back in rotation")),
                (Some(_), true) | (None, false) => {}
            }
        }
        news
    }

    fn line(&self, summary: &Summary) -> String {
        let out = summary.endpoints.iter().filter(|status| !status.is_healthy()).count();
        format!(
            "{:>6.1} s  {:>4} requests/s, {:.2} % ok, {:.3} attempts a request, {}, {out} ejected, {} rogue connections, {}",
            summary.age.as_secs_f64(),
            summary.caller.requests - self.last.1,
            100.0 * summary.success_rate(),
            summary.attempts_per_request,
            summary.split(),
            summary.rogue_tried,
            summary.refused_in_words(),
        )
    }

    fn picture(&self, summary: &Summary) -> String {
        let mut text = String::new();
        let mut line = |content: &str| {
            // Clearing to the end of the line removes what stood there. Writing to a String cannot fail.
            _ = writeln!(text, "{content}\x1b[K");
        };
        let age = summary.age.as_secs_f64();
        line(
            &self.paint(
                BOLD,
                &format!("mesh-proxy  {SERVICE} behind STRICT mutual TLS   {age:.1} s"),
            ),
        );
        line("");
        line(&format!(
            "callers    {} requests, {:.0}/s, {:.2} % ok, {}",
            summary.caller.requests,
            self.rate,
            100.0 * summary.success_rate(),
            summary.latency(),
        ));
        line(&format!(
            "mesh       {:.3} attempts a request, {} retries, {} ejections",
            summary.attempts_per_request, summary.retries, summary.ejections
        ));
        line(&format!("split      {}", summary.split()));
        line(&format!(
            "rogue pod  {} connections, {} let in, {}",
            summary.rogue_tried,
            summary.let_in,
            summary.refused_in_words()
        ));
        line("");
        line(&self.paint(
            DIM,
            &format!(
                "{:<14} {:<16} {:<6} {:<42} {:>6} {:>7} {:>7} {:>9}",
                "endpoint", "address", "subset", "state", "active", "ok", "failed", "latency"
            ),
        ));
        for status in &summary.endpoints {
            line(&self.endpoint(status));
        }
        line("");
        for event in &self.events {
            line(event);
        }
        line("");
        for hint in &self.hints {
            line(&self.paint(DIM, hint));
        }
        text
    }

    fn endpoint(&self, status: &EndpointStatus) -> String {
        let address = status.endpoint.address();
        let (colour, state) = match &status.ejection {
            None if status.is_healthy() => (GREEN, format!("● {}", status.life)),
            None => (RED, format!("● {}", status.life)),
            Some(ejection) => {
                let why = ejection.detector.map(|why| format!(" by {why}")).unwrap_or_default();
                let left = ejection.left.as_secs_f64();
                (RED, format!("● ejected{why}, {left:.1} s left"))
            }
        };
        format!(
            "{:<14} {:<16} {:<6} {} {:>6} {:>7} {:>7} {:>6.1} ms",
            self.names.get(&**address).copied().unwrap_or(""),
            address,
            status.subset,
            self.paint(colour, &format!("{state:<42}")),
            status.active,
            status.successes,
            status.failures,
            1_000.0 * status.latency.as_secs_f64(),
        )
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("{colour}{text}\x1b[0m") } else { text.to_owned() }
    }
}

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";

impl Drop for View {
    fn drop(&mut self) {
        if self.redraws {
            print!("\x1b[?7h\x1b[?25h\x1b[?1049l");
            drop(std::io::stdout().flush());
        }
        for event in &self.events {
            println!("{event}");
        }
    }
}
