//! `matches` of an HTTPRoute's rule.

use mesh_core::route::{Match, PathMatch, TextMatch};

use super::cursor::{Field, Fields, Report};
use crate::route::Regex;

/// What stands for no match at all.
pub(super) fn every() -> Match {
    Match::any().with_path(PathMatch::segments("/"))
}

/// The matches of a rule, of which one is enough. `None` if one of them cannot be read.
pub(super) fn read(field: &Field<'_>, report: &mut Report<'_>) -> Option<Vec<Match>> {
    let items = field.list(report)?;
    let read: Vec<Option<Match>> = items.iter().map(|item| read_one(item, report)).collect();
    let all = read.into_iter().collect::<Option<Vec<_>>>()?;
    Some(if all.is_empty() { vec![every()] } else { all })
}

fn read_one(item: &Field<'_>, report: &mut Report<'_>) -> Option<Match> {
    let mut fields = item.fields(report)?;
    let path = fields.take("path").map(|path| read_path(&path, report));
    let mut one = Match::any().with_path(match path {
        Some(path) => path?,
        None => PathMatch::segments("/"),
    });
    if let Some(method) = fields.take("method") {
        one = one.with_method(TextMatch::exact(method.text(report)?));
    }
    for (name, text) in read_named(&mut fields, "headers", report)? {
        one = one.with_header(&name, text);
    }
    for (name, text) in read_named(&mut fields, "queryParams", report)? {
        one = one.with_query(name, text);
    }
    fields.finish(report);
    // The table that will be asked is the one judge of names and expressions.
    if let Err(error) = one.check(Regex::new) {
        item.report(report, &error.to_string());
        return None;
    }
    Some(one)
}

/// Default: every path that begins with `/`.
fn read_path(field: &Field<'_>, report: &mut Report<'_>) -> Option<PathMatch> {
    let mut fields = field.fields(report)?;
    let kind = fields.take("type");
    let value = fields.take("value");
    fields.finish(report);
    let text = match &value {
        Some(value) => value.text(report)?,
        None => "/",
    };
    let is_path = text.starts_with('/');
    match kind.as_ref().map_or(Some("PathPrefix"), |kind| kind.text(report))? {
        "RegularExpression" => Some(PathMatch::regex(text)),
        "PathPrefix" if is_path => Some(PathMatch::segments(text)),
        "Exact" if is_path => Some(PathMatch::exact(text)),
        "PathPrefix" | "Exact" => {
            value.as_ref().unwrap_or(field).invalid("is not allowed, expected /…", report);
            None
        }
        _ => {
            let kind = kind.as_ref().unwrap_or(field);
            kind.invalid("is not allowed, expected Exact, PathPrefix or RegularExpression", report);
            None
        }
    }
}

/// `headers` or `queryParams`. Of one name the first counts.
fn read_named(
    fields: &mut Fields<'_>,
    name: &'static str,
    report: &mut Report<'_>,
) -> Option<Vec<(String, TextMatch)>> {
    let Some(field) = fields.take(name) else { return Some(Vec::new()) };
    let mut all = Vec::new();
    for item in field.list(report)? {
        let mut fields = item.fields(report)?;
        let kind = fields.take("type");
        let (name, value) = (fields.require("name", report), fields.require("value", report));
        fields.finish(report);
        let (name, value) = (name?.text(report)?, value?.text(report)?);
        let text = match kind.as_ref().map_or(Some("Exact"), |kind| kind.text(report))? {
            "Exact" => TextMatch::exact(value),
            "RegularExpression" => TextMatch::regex(value),
            _ => {
                let kind = kind.as_ref().unwrap_or(&item);
                kind.invalid("is not allowed, expected Exact or RegularExpression", report);
                return None;
            }
        };
        all.push((name.to_owned(), text));
    }
    Some(all)
}
