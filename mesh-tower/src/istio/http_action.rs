//! What a VirtualService's rule does to a request: `rewrite`, `headers`, `redirect`, `directResponse`.

use mesh_core::{
    InvalidConfig,
    route::{DirectResponse, HeaderChanges, Match, PathRewrite, Redirect},
};

use super::cursor::{Field, Fields, Report};
use crate::route::check_rewrite;

/// New path and new authority.
#[derive(Debug, Default)]
pub(super) struct Rewrite {
    pub(super) path: Option<PathRewrite>,
    pub(super) authority: Option<String>,
}

pub(super) fn read_rewrite(
    field: &Field<'_>,
    matches: &[Match],
    report: &mut Report<'_>,
) -> Option<Rewrite> {
    let mut fields = field.fields(report)?;
    let uri = fields.take("uri");
    let regex = fields.take("uriRegexRewrite");
    let authority = read_string(&mut fields, "authority", report)?;
    fields.finish(report);
    let path = match (uri, regex) {
        (_, Some(regex)) => {
            let mut fields = regex.fields(report)?;
            let pattern = fields.require("match", report);
            let substitution = fields.require("rewrite", report);
            fields.finish(report);
            Some(PathRewrite::Regex {
                pattern: pattern?.text(report)?.to_owned(),
                substitution: substitution?.text(report)?.to_owned(),
            })
        }
        (Some(uri), None) => Some(uri.text(report)?.to_owned())
            .filter(|uri| !uri.is_empty())
            .map(PathRewrite::Prefix),
        (None, None) => None,
    };
    if let Some(path) = &path {
        valid(check_rewrite(path, matches), field, report)?;
    }
    Some(Rewrite { path, authority })
}

/// Changes to the headers of requests and responses, and the authority that requests get.
#[derive(Debug, Default)]
pub(super) struct Headers {
    pub(super) request: HeaderChanges,
    pub(super) response: HeaderChanges,
    pub(super) authority: Option<String>,
}

pub(super) fn read_headers(field: &Field<'_>, report: &mut Report<'_>) -> Option<Headers> {
    let mut fields = field.fields(report)?;
    let mut headers = Headers::default();
    let (request, response) = (fields.take("request"), fields.take("response"));
    fields.finish(report);
    if let Some(request) = request {
        headers.request = read_changes(&request, &mut headers.authority, report)?;
    }
    if let Some(response) = response {
        // A response has no authority; Istio drops it too.
        headers.response = read_changes(&response, &mut None, report)?;
    }
    Some(headers)
}

fn read_changes(
    field: &Field<'_>,
    authority: &mut Option<String>,
    report: &mut Report<'_>,
) -> Option<HeaderChanges> {
    let mut fields = field.fields(report)?;
    let (set, add, remove) = (fields.take("set"), fields.take("add"), fields.take("remove"));
    fields.finish(report);
    let mut changes = HeaderChanges::none();
    // What is set wins over what is added, also as the authority.
    for (list, added) in [(add, true), (set, false)] {
        for (key, value) in list.map_or_else(|| Some(Vec::new()), |list| list.entries(report))? {
            let text = literal(&value, report)?;
            if is_authority(&key.name) {
                *authority = Some(text);
                continue;
            }
            let put = match added {
                true => changes.add(&key.name, &text),
                false => changes.set(&key.name, &text),
            };
            changes = valid(put, &value, report)?;
        }
    }
    for item in remove.map_or_else(|| Some(Vec::new()), |list| list.list(report))? {
        let name = item.text(report)?;
        if !is_authority(name) {
            changes = valid(changes.remove(name), &item, report)?;
        }
    }
    Some(changes)
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

/// A value as it is sent: `%%` is a `%`, and what Envoy would put in the place of `%REQ(…)%` is not known here.
fn literal(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = field.text(report)?;
    if text.replace("%%", "").contains('%') {
        field.unsupported(
            "is not supported: a value is sent as it stands, a % is written %%",
            report,
        );
        return None;
    }
    Some(text.replace("%%", "%"))
}

pub(super) fn read_redirect(
    field: &Field<'_>,
    matches: &[Match],
    report: &mut Report<'_>,
) -> Option<Redirect> {
    let mut fields = field.fields(report)?;
    let uri = read_string(&mut fields, "uri", report)?;
    let mut redirect = Redirect::new()
        .with_authority(read_string(&mut fields, "authority", report)?)
        .with_scheme(read_string(&mut fields, "scheme", report)?);
    let (port, derive) = (fields.take("port"), fields.take("derivePort"));
    let code = fields.take("redirectCode");
    fields.finish(report);
    if let Some(uri) = uri {
        let rewrite = PathRewrite::Whole(uri);
        valid(check_rewrite(&rewrite, matches), field, report)?;
        redirect = redirect.with_rewrite(Some(rewrite));
    }
    if let Some(port) = port {
        let number = port.number(u32::from(u16::MAX), report)?;
        redirect = redirect.with_port(u16::try_from(number).ok().filter(|port| *port > 0));
    }
    if let Some(derive) = derive {
        match derive.text(report)? {
            "FROM_PROTOCOL_DEFAULT" => {}
            _ => derive.unsupported("is not supported, expected FROM_PROTOCOL_DEFAULT", report),
        }
    }
    match code.map(|code| (code.number(u32::from(u16::MAX), report), code)) {
        None | Some((Some(0), _)) => Some(redirect),
        Some((number, code)) => {
            let status = u16::try_from(number?).unwrap_or(u16::MAX);
            valid(redirect.with_status(status), &code, report)
        }
    }
}

pub(super) fn read_direct(field: &Field<'_>, report: &mut Report<'_>) -> Option<DirectResponse> {
    let mut fields = field.fields(report)?;
    let status = fields.require("status", report);
    let body = fields.take("body");
    fields.finish(report);
    let status = status?.number(u32::from(u16::MAX), report)?;
    let mut text = String::new();
    if let Some(body) = body {
        let mut fields = body.fields(report)?;
        fields.refuse("bytes", "is not supported, expected string", report);
        text = read_string(&mut fields, "string", report)?.unwrap_or_default();
        fields.finish(report);
    }
    let status = u16::try_from(status).unwrap_or(u16::MAX);
    valid(DirectResponse::new(status, text), field, report)
}

/// A text that is empty is none, as in protobuf. The outer `None`: it is no text.
fn read_string(
    fields: &mut Fields<'_>,
    name: &'static str,
    report: &mut Report<'_>,
) -> Option<Option<String>> {
    let Some(field) = fields.take(name) else { return Some(None) };
    Some(Some(field.text(report)?.to_owned()).filter(|text| !text.is_empty()))
}

pub(super) fn valid<T>(
    made: Result<T, InvalidConfig>,
    field: &Field<'_>,
    report: &mut Report<'_>,
) -> Option<T> {
    made.map_err(|error| field.report(report, &error.to_string())).ok()
}
