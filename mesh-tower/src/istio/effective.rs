use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use super::yaml::{Node, Value};

/// The `trafficPolicy` in force for a host, a subset and a port, once everything that has a say was merged: the mesh's
/// default, the rule, the subset, the port. The blocks stand as they were written, with the fields that Istio ignores and
/// those that this crate does not carry out.
///
/// Printed as YAML in one line, which is JSON too; with `{:#}` as YAML in lines.
///
/// ```
/// use mesh_tower::istio::{self, Unsupported};
///
/// let documents = istio::read("\
/// apiVersion: networking.istio.io/v1
/// kind: DestinationRule
/// metadata: {name: shop}
/// spec:
///   host: shop
///   trafficPolicy:
///     loadBalancer: {simple: ROUND_ROBIN}
///     connectionPool: {http: {maxRetries: 10}}
///     portLevelSettings:
///       - port: {number: 8080}
///         loadBalancer: {simple: LEAST_REQUEST}
/// ", "shop.yaml", Unsupported::Error)?;
/// let policy = documents.effective_policy("shop", None)?.expect("named by the rule");
/// assert_eq!(
///     policy.to_string(),
///     r#"{"connectionPool": {"http": {"maxRetries": 10}}, "loadBalancer": {"simple": "ROUND_ROBIN"}}"#,
/// );
/// // A block that the port does not name is not inherited.
/// let policy = documents.effective_policy("shop:8080", None)?.expect("named by the rule");
/// assert_eq!(format!("{policy:#}"), "loadBalancer:\n  simple: \"LEAST_REQUEST\"\n");
/// # Ok::<_, istio::Errors>(())
/// ```
#[derive(Clone, Debug)]
pub struct EffectivePolicy {
    pub(super) blocks: Vec<(&'static str, Arc<Node>)>,
}

impl EffectivePolicy {
    /// The names of the blocks that are named somewhere. Of the others Istio's default is in force.
    pub fn blocks(&self) -> impl Iterator<Item = &'static str> {
        self.blocks.iter().map(|(name, _)| *name)
    }
}

impl fmt::Display for EffectivePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return self
                .blocks
                .iter()
                .try_for_each(|(name, node)| write_lines(f, name, &node.value, 0));
        }
        f.write_char('{')?;
        for (index, (name, node)) in self.blocks.iter().enumerate() {
            write!(f, "{}\"{name}\": ", separator(index))?;
            write_flow(f, &node.value)?;
        }
        f.write_char('}')
    }
}

fn separator(index: usize) -> &'static str {
    if index == 0 { "" } else { ", " }
}

/// JSON, which is YAML in flow style.
fn write_flow(f: &mut fmt::Formatter<'_>, value: &Value) -> fmt::Result {
    match value {
        Value::Null => f.write_str("null"),
        Value::Bool(value) => write!(f, "{value}"),
        Value::Integer(value) => write!(f, "{value}"),
        // With its point: a whole number is another type. Finite: the parser lets no other through.
        Value::Float(value) => write!(f, "{value:?}"),
        Value::Text(text) => write_text(f, text),
        Value::List(nodes) => {
            f.write_char('[')?;
            for (index, node) in nodes.iter().enumerate() {
                f.write_str(separator(index))?;
                write_flow(f, &node.value)?;
            }
            f.write_char(']')
        }
        Value::Map(fields) => {
            f.write_char('{')?;
            for (index, (key, node)) in fields.iter().enumerate() {
                f.write_str(separator(index))?;
                write_text(f, &key.name)?;
                f.write_str(": ")?;
                write_flow(f, &node.value)?;
            }
            f.write_char('}')
        }
    }
}

/// A field with its mapping on lines of its own; whatever is no mapping stands on the field's line.
fn write_lines(f: &mut fmt::Formatter<'_>, name: &str, value: &Value, depth: usize) -> fmt::Result {
    write!(f, "{:indent$}", "", indent = depth * 2)?;
    let is_plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
    if is_plain {
        f.write_str(name)?
    } else {
        write_text(f, name)?
    }
    match value {
        Value::Map(fields) if !fields.is_empty() => {
            f.write_str(":\n")?;
            fields
                .iter()
                .try_for_each(|(key, node)| write_lines(f, &key.name, &node.value, depth + 1))
        }
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::List(_)
        | Value::Map(_) => {
            f.write_str(": ")?;
            write_flow(f, value)?;
            f.write_char('\n')
        }
    }
}

/// A text in double quotes, with JSON's escapes: a terminal must not obey it.
fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> EffectivePolicy {
        let mut blocks = Vec::new();
        crate::istio::yaml::documents(text, |_, node| {
            blocks
                .push(("tls", Arc::new(node.unwrap_or_else(|error| panic!("{text}: {error:?}")))));
        });
        EffectivePolicy { blocks }
    }

    #[test]
    fn what_is_printed_is_what_was_written() {
        let text =
            "{\"a b\": [1, -2.5, 20.0, 1e-7, true, null], c: \"x\\e\\\"\\\\é\", d: {}, e: {f: 1}}";
        let first = policy(text);
        assert_eq!(
            first.to_string(),
            "{\"tls\": {\"a b\": [1, -2.5, 20.0, 1e-7, true, null], \"c\": \"x\\u001b\\\"\\\\é\", \"d\": {}, \"e\": {\"f\": 1}}}"
        );
        assert_eq!(
            format!("{first:#}"),
            "tls:\n  \"a b\": [1, -2.5, 20.0, 1e-7, true, null]\n  c: \"x\\u001b\\\"\\\\é\"\n  d: {}\n  e:\n    f: 1\n"
        );
        // Both forms are YAML again, and mean the same.
        let (flow, lines) = (policy(&first.to_string()), policy(&format!("{first:#}")));
        assert_eq!(flow.to_string(), lines.to_string());
    }
}
