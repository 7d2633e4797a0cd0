//! `filters` of an HTTPRoute's rule, or of one of its backends.

use mesh_core::{
    Ratio,
    route::{HeaderChanges, Match, Mirror, PathRewrite, Redirect},
};

use super::{
    Destination,
    cursor::{Field, Fields, Report},
    http_action::valid,
    http_route::{read_destination, read_port},
};
use crate::route::check_rewrite;

/// What the filters of a rule, or of a backend, do.
#[derive(Default)]
pub(super) struct Filters {
    pub(super) request: HeaderChanges,
    pub(super) response: HeaderChanges,
    pub(super) rewrite: Option<PathRewrite>,
    pub(super) authority: Option<String>,
    pub(super) redirect: Option<Redirect>,
    pub(super) mirrors: Vec<Mirror<Destination>>,
    /// The kinds that were there.
    kinds: Vec<String>,
}

impl Filters {
    /// `rule` has the matches of the rule, and its namespace; a backend's filters change headers only.
    pub(super) fn read(
        &mut self,
        item: &Field<'_>,
        rule: Option<(&[Match], &str)>,
        report: &mut Report<'_>,
    ) -> Option<()> {
        let mut fields = item.fields(report)?;
        let kind = fields.require("type", report)?;
        let name = kind.text(report)?;
        if name != "RequestMirror" && self.has(name) {
            kind.invalid("stands there twice, and only RequestMirror may", report);
        }
        self.kinds.push(name.to_owned());
        match (name, rule) {
            ("RequestHeaderModifier", _) => {
                let changes =
                    read_changes(&fields.require("requestHeaderModifier", report)?, report)?;
                self.request = std::mem::take(&mut self.request).then(&changes);
            }
            ("ResponseHeaderModifier", _) => {
                let changes =
                    read_changes(&fields.require("responseHeaderModifier", report)?, report)?;
                self.response = std::mem::take(&mut self.response).then(&changes);
            }
            ("URLRewrite", Some((matches, _))) => {
                let field = fields.require("urlRewrite", report)?;
                let mut fields = field.fields(report)?;
                self.authority = read_text(&mut fields, "hostname", report)?;
                self.rewrite = read_path(&mut fields, matches, report)?;
                fields.finish(report);
            }
            ("RequestRedirect", Some((matches, _))) => {
                let field = fields.require("requestRedirect", report)?;
                self.redirect = Some(read_redirect(&field, matches, report)?);
            }
            ("RequestMirror", Some((_, namespace))) => {
                let field = fields.require("requestMirror", report)?;
                self.mirrors.push(read_mirror(&field, namespace, report)?);
            }
            (_, _) => kind.unsupported("is not supported here", report),
        }
        fields.finish(report);
        Some(())
    }

    /// What the others cannot do where no request goes on. `at` is the list of filters.
    pub(super) fn check_redirect(&self, at: &Field<'_>, report: &mut Report<'_>) {
        if !self.has("RequestRedirect") {
            return;
        }
        if self.has("URLRewrite") {
            at.report(report, "RequestRedirect and URLRewrite cannot stand in one rule");
        }
        for other in ["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror"] {
            if self.has(other) {
                let why = format!("has {other}, which is not carried out beside RequestRedirect");
                report.unsupported(at.place(), &at.path, why);
            }
        }
    }

    fn has(&self, kind: &str) -> bool {
        self.kinds.iter().any(|known| known == kind)
    }
}

fn read_text(
    fields: &mut Fields<'_>,
    name: &'static str,
    report: &mut Report<'_>,
) -> Option<Option<String>> {
    match fields.take(name) {
        Some(field) => Some(Some(field.text(report)?.to_owned())),
        None => Some(None),
    }
}

/// `set`, `add` and `remove`; what is set wins over what is added.
fn read_changes(field: &Field<'_>, report: &mut Report<'_>) -> Option<HeaderChanges> {
    let mut fields = field.fields(report)?;
    let (set, add, remove) = (fields.take("set"), fields.take("add"), fields.take("remove"));
    fields.finish(report);
    let mut changes = HeaderChanges::none();
    for (list, added) in [(add, true), (set, false)] {
        for item in list.map_or_else(|| Some(Vec::new()), |list| list.list(report))? {
            let mut fields = item.fields(report)?;
            let (name, value) = (fields.require("name", report), fields.require("value", report));
            fields.finish(report);
            let (name, value) = (name?.text(report)?, value?.text(report)?);
            let put = if added { changes.add(name, value) } else { changes.set(name, value) };
            changes = valid(put, &item, report)?;
        }
    }
    for item in remove.map_or_else(|| Some(Vec::new()), |list| list.list(report))? {
        changes = valid(changes.remove(item.text(report)?), &item, report)?;
    }
    Some(changes)
}

/// `path` of a rewrite or a redirect.
fn read_path(
    fields: &mut Fields<'_>,
    matches: &[Match],
    report: &mut Report<'_>,
) -> Option<Option<PathRewrite>> {
    let Some(field) = fields.take("path") else { return Some(None) };
    let mut fields = field.fields(report)?;
    let kind = fields.require("type", report)?;
    let rewrite = match kind.text(report)? {
        "ReplaceFullPath" => {
            PathRewrite::Whole(fields.require("replaceFullPath", report)?.text(report)?.to_owned())
        }
        "ReplacePrefixMatch" => {
            let prefix = fields.require("replacePrefixMatch", report)?;
            PathRewrite::Segments(prefix.text(report)?.to_owned())
        }
        _ => {
            kind.invalid("is not allowed, expected ReplaceFullPath or ReplacePrefixMatch", report);
            return None;
        }
    };
    fields.finish(report);
    valid(check_rewrite(&rewrite, matches), &field, report)?;
    Some(Some(rewrite))
}

fn read_redirect(
    field: &Field<'_>,
    matches: &[Match],
    report: &mut Report<'_>,
) -> Option<Redirect> {
    let mut fields = field.fields(report)?;
    let redirect = Redirect::new()
        .with_scheme(read_text(&mut fields, "scheme", report)?)
        .with_authority(read_text(&mut fields, "hostname", report)?)
        .with_rewrite(read_path(&mut fields, matches, report)?);
    let port = fields.take("port").map(|port| read_port(&port, report));
    let status = fields.take("statusCode");
    fields.finish(report);
    let port = match port {
        Some(port) => Some(port?),
        None => None,
    };
    // Gateway API's default.
    let code = match &status {
        Some(status) => u16::try_from(status.number(999, report)?).unwrap_or_default(),
        None => 302,
    };
    valid(redirect.with_port(port).with_status(code), status.as_ref().unwrap_or(field), report)
}

/// Default all of the requests.
fn read_mirror(
    field: &Field<'_>,
    namespace: &str,
    report: &mut Report<'_>,
) -> Option<Mirror<Destination>> {
    let mut fields = field.fields(report)?;
    let backend = fields.require("backendRef", report);
    let (percent, fraction) = (fields.take("percent"), fields.take("fraction"));
    fields.finish(report);
    let backend = backend?;
    let destination = read_destination(&backend, backend.fields(report)?, namespace, report)?;
    let share = match (percent, fraction) {
        (None, None) => Ratio::ONE,
        (Some(percent), None) => Ratio::from_percent(percent.number(100, report)?),
        (None, Some(fraction)) => {
            let mut fields = fraction.fields(report)?;
            let of = fields.require("numerator", report);
            let all = fields.take("denominator");
            fields.finish(report);
            let of = of?.number(i32::MAX as u32, report)?;
            let all = all.map_or(Some(100), |all| all.number(i32::MAX as u32, report))?;
            if all == 0 || of > all {
                fraction.report(report, "is not allowed, expected a share of 0 to 1");
                return None;
            }
            let millionths = u64::from(of) * 1_000_000 / u64::from(all);
            Ratio::from_ppm(u32::try_from(millionths).unwrap_or_default())
        }
        (Some(_), Some(_)) => {
            field.report(report, "needs either percent or fraction");
            return None;
        }
    };
    Some(Mirror::new(destination, share))
}
