//! `match` of a VirtualService's rule.

use mesh_core::route::{Match, PathMatch, TextMatch};

use super::{
    cursor::{Field, Fields, Report},
    yaml::Value,
};
use crate::route::Regex;

/// The matches of a rule, of which one is enough. `None` if one of them cannot be read.
pub(super) fn read(field: &Field<'_>, report: &mut Report<'_>) -> Option<Vec<Match>> {
    let items = field.list(report)?;
    let read: Vec<Option<Match>> = items.iter().map(|item| read_one(item, report)).collect();
    read.into_iter().collect()
}

fn read_one(item: &Field<'_>, report: &mut Report<'_>) -> Option<Match> {
    let mut fields = item.fields(report)?;
    // For people and statistics.
    for name in ["name", "statPrefix"] {
        if let Some(name) = fields.take(name) {
            name.text(report)?;
        }
    }
    let mut one = Match::any();
    if let Some(uri) = fields.take("uri")
        && let Some(path) = path(read_text(&uri, report)?)
    {
        one = one.with_path(path);
    }
    if let Some(ignore) = fields.take("ignoreUriCase") {
        one = one.with_case_ignored(ignore.boolean(report)?);
    }
    if let Some(scheme) = fields.take("scheme") {
        one = one.with_scheme(read_text(&scheme, report)?);
    }
    if let Some(method) = fields.take("method") {
        one = one.with_method(read_text(&method, report)?);
    }
    if let Some(authority) = fields.take("authority") {
        one = one.with_authority(read_text(&authority, report)?);
    }
    for (name, text) in read_named(&mut fields, "headers", report)? {
        one = one.with_header(&name, text);
    }
    for (name, text) in read_named(&mut fields, "withoutHeaders", report)? {
        one = one.without_header(&name, text);
    }
    for (name, text) in read_named(&mut fields, "queryParams", report)? {
        one = one.with_query(name, text);
    }
    if let Some(port) = fields.take("port") {
        // 0 is none, as in protobuf.
        if let Ok(port @ 1..) = u16::try_from(port.number(u32::from(u16::MAX), report)?) {
            one = one.with_port(port);
        }
    }
    if let Some(labels) = fields.take("sourceLabels") {
        one = one.with_source_labels(labels.labels(report)?);
    }
    if let Some(namespace) = fields.take("sourceNamespace") {
        let namespace = namespace.text(report)?;
        if !namespace.is_empty() {
            one = one.with_source_namespace(namespace);
        }
    }
    if let Some(gateways) = fields.take("gateways") {
        let names = gateways.list(report)?;
        let names = names.iter().map(|name| name.text(report).map(str::to_owned));
        one = one.with_gateways(names.collect::<Option<_>>()?);
    }
    fields.finish(report);
    // The table that will be asked is the one judge of names and expressions.
    if let Err(error) = one.check(Regex::new) {
        item.report(report, &error.to_string());
        return None;
    }
    Some(one)
}

fn path(text: TextMatch) -> Option<PathMatch> {
    match text {
        TextMatch::Exact(path) => Some(PathMatch::Exact(path)),
        TextMatch::Prefix(path) => Some(PathMatch::Prefix(path)),
        TextMatch::Regex(text) => Some(PathMatch::Regex(text)),
        // No kind of match is any path.
        TextMatch::Present => None,
    }
}

fn read_text(field: &Field<'_>, report: &mut Report<'_>) -> Option<TextMatch> {
    let mut fields = field.fields(report)?;
    let kinds = ["exact", "prefix", "regex"].map(|kind| fields.take(kind));
    fields.finish(report);
    let given = kinds.iter().flatten().count();
    if given > 1 {
        field.invalid("needs one of exact, prefix and regex", report);
        return None;
    }
    let [exact, prefix, regex] = kinds;
    if let Some(exact) = exact {
        return exact.text(report).map(TextMatch::exact);
    }
    if let Some(prefix) = prefix {
        return prefix.text(report).map(TextMatch::prefix);
    }
    match regex {
        Some(regex) => regex.text(report).map(TextMatch::istio_regex),
        None => Some(TextMatch::Present),
    }
}

fn read_named(
    fields: &mut Fields<'_>,
    name: &'static str,
    report: &mut Report<'_>,
) -> Option<Vec<(String, TextMatch)>> {
    let Some(field) = fields.take(name) else { return Some(Vec::new()) };
    let mut all = Vec::new();
    for (key, value) in field.entries(report)? {
        if key.name.starts_with('@') {
            value.unsupported("is not supported: claims of a token are no headers here", report);
            return None;
        }
        // `x-user:` with nothing behind it is there.
        let text = match value.node.value == Value::Null {
            true => TextMatch::Present,
            false => read_text(&value, report)?,
        };
        all.push((key.name.clone(), text));
    }
    Some(all)
}
