//! What stands in an `AuthorizationPolicy` and does not mean what it seems to say.

use mesh_core::authorize::Attribute;

use super::{
    cursor::{Fields, Report},
    yaml::{Node, Place, Value, shorten},
};

/// Reports every `null`, however deep: a key with nothing behind it is a line that was lost. To Kubernetes it is absent: of
/// an action it makes `ALLOW`, and of whom a rule is for everybody.
pub(super) fn refuse_nulls(fields: &Fields<'_>, report: &mut Report<'_>) {
    for (key, node) in fields.left() {
        refuse_null(key.place, &fields.path_of(&shorten(&key.name, 60)), node, report);
    }
}

fn refuse_null(place: Place, path: &str, node: &Node, report: &mut Report<'_>) {
    match &node.value {
        Value::Null => report.invalid(place, path, "is null: leave it out, or say what it is"),
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                refuse_null(item.place, &format!("{path}[{index}]"), item, report);
            }
        }
        Value::Map(fields) => {
            for (key, node) in fields {
                let path = format!("{path}.{}", shorten(&key.name, 60));
                refuse_null(key.place, &path, node, report);
            }
        }
        Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {}
    }
}

/// What the machine takes, and does not mean what it seems to say: a rule that refuses nothing, and says nothing of it.
pub(super) fn surprise(attribute: &Attribute, value: &str) -> Option<&'static str> {
    if value.trim() != value {
        return Some("matches nothing: there are no blanks at the ends of what is sent");
    }
    let is = |other: Attribute| *attribute == other;
    let is_header = |names: &[&str]| matches!(attribute, Attribute::Header(name) if names.contains(&name.as_str()));
    if is(Attribute::Principal) && value.starts_with("spiffe://") {
        return Some("matches nothing: leave out spiffe://");
    }
    if is(Attribute::Principal) && !value.contains(['/', '*']) {
        return Some(NO_PRINCIPAL);
    }
    if is(Attribute::TrustDomain) && value.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some("matches nothing: a trust domain has no capitals");
    }
    if is(Attribute::Sni) && value.contains(':') {
        return Some("matches nothing: a server name has no port, and is no address");
    }
    if is(Attribute::Path)
        && let Some(why) = path_surprise(value)
    {
        return Some(why);
    }
    let is_host = is(Attribute::Host) || is(Attribute::Sni) || is_header(&["host", ":authority"]);
    if is_host && !value.bytes().all(is_of_host) {
        return Some(NO_HOST);
    }
    let is_method = is(Attribute::Method) || is_header(&[":method"]);
    if is_method && value.bytes().any(|byte| !byte.is_ascii_graphic() || byte.is_ascii_lowercase())
    {
        return Some("matches nothing: a method is written in capitals");
    }
    // A namespace has any number of stars; of accounts, domains, addresses and ports the machine judges.
    let is_glob = is(Attribute::Namespace) || is(Attribute::ServiceAccount);
    let is_template = is(Attribute::Path) && value.contains('{');
    (!is_glob && !is_template && has_inner_star(value)).then_some(STAR)
}

fn path_surprise(value: &str) -> Option<&'static str> {
    if !value.starts_with(['/', '*']) {
        return Some("matches nothing: a path begins with / or *");
    }
    if value.contains(['?', '#', '\\']) {
        return Some("matches nothing: a path has no query, and its \\ are /");
    }
    let mut segments = value.split('/');
    segments
        .any(|segment| matches!(segment, "." | ".."))
        .then_some("matches nothing: the dots of a path are resolved before it is judged")
}

/// Names, addresses in brackets, and ports have no other letters. Whose a host with others is, nobody can tell.
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.:[]*".contains(&byte)
}

const NO_PRINCIPAL: &str = "matches nothing: a principal is a trust domain with a path, such as \
    cluster.local/ns/shop/sa/cart";

const NO_HOST: &str = "matches nothing: a host is a name (of others than ASCII its xn-- form) or an address, and perhaps \
    a port";

const STAR: &str = "is not allowed: * stands at the beginning or at the end, once";

fn has_inner_star(value: &str) -> bool {
    match value.matches('*').count() {
        0 => false,
        1 => !value.starts_with('*') && !value.ends_with('*'),
        _ => true,
    }
}
