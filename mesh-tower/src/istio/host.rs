//! Names of services: `shop`, `shop.sales.svc.cluster.local`, `*.sales.svc.cluster.local`.

use super::cursor::{Field, Report};

pub(super) const CLUSTER: &str = ".svc.cluster.local";

/// A host as it was written, and in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) written: String,
    pub(super) full: String,
}

impl Host {
    /// A name without a dot is a service of the document's own namespace; any other is taken as it stands (Istio,
    /// `ResolveShortnameToFQDN`).
    pub(super) fn resolve(written: &str, namespace: &str) -> Self {
        let full = match written.contains(['.', '*']) {
            false => format!("{written}.{namespace}{CLUSTER}"),
            true => written.to_owned(),
        };
        Self { written: written.to_owned(), full }
    }

    pub(super) fn read(
        field: &Field<'_>,
        namespace: &str,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let text = field.text(report)?;
        let name = text.strip_prefix("*.").unwrap_or(text);
        let is_part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if text != "*" && (text.len() > 253 || !name.split('.').all(is_part)) {
            field.invalid("is not a host, expected e.g. \"shop\", \"shop.sales.svc.cluster.local\", \"*.local\"", report);
            return None;
        }
        Some(Self::resolve(text, namespace))
    }

    pub(super) fn is_wildcard(&self) -> bool {
        self.full.starts_with('*')
    }

    /// How exactly this host means `full`: `None` not at all, else more is more specific. An exact name beats each wildcard.
    pub(super) fn specificity(&self, full: &str) -> Option<usize> {
        match self.full.strip_prefix('*') {
            None => (self.full == full).then_some(usize::MAX),
            Some(suffix) => full.ends_with(suffix).then_some(suffix.len()),
        }
    }
}

/// Whether a full name is what a caller means by `asked`: the full name itself, or the same less its cluster domain,
/// or less its namespace too.
pub(super) fn is_asked(full: &str, asked: &str) -> bool {
    let Some(rest) = full.strip_prefix(asked) else { return false };
    match rest {
        "" | ".cluster.local" => true,
        _ => match rest.strip_suffix(CLUSTER) {
            // `asked` was name.namespace, or name alone.
            Some("") => asked.contains('.'),
            Some(namespace) => {
                !asked.contains('.')
                    && namespace.strip_prefix('.').is_some_and(|n| !n.contains('.'))
            }
            None => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_belong_to_the_namespace() {
        assert_eq!(Host::resolve("shop", "sales").full, "shop.sales.svc.cluster.local");
        // Istio's known trap: one dot makes it a full name.
        assert_eq!(Host::resolve("shop.sales", "sales").full, "shop.sales");
        assert_eq!(Host::resolve("*", "sales").full, "*");
    }

    #[test]
    fn exact_beats_wildcard_and_long_beats_short() {
        let specificity =
            |host| Host::resolve(host, "sales").specificity("shop.sales.svc.cluster.local");
        let order = ["*", "*.local", "*.sales.svc.cluster.local", "shop"].map(specificity);
        assert!(order.is_sorted() && order[0].is_some(), "{order:?}");
        assert_eq!(specificity("*.other.svc.cluster.local"), None);
        assert_eq!(specificity("cart"), None);
        assert_eq!(specificity("*.shop.sales.svc.cluster.local"), None, "a wildcard needs a label");
    }

    #[test]
    fn a_caller_may_leave_out_what_is_clear() {
        let full = "shop.sales.svc.cluster.local";
        for asked in ["shop", "shop.sales", "shop.sales.svc", full] {
            assert!(is_asked(full, asked), "{asked}");
        }
        for asked in [
            "",
            "sho",
            "shop.",
            "shop.sale",
            "shop.sales.svc.cluster",
            "sales",
            "shop.sales.svc.cluster.local.x",
        ] {
            assert!(!is_asked(full, asked), "{asked}");
        }
        assert!(is_asked("api.example.com", "api.example.com"));
        assert!(!is_asked("api.example.com", "api"));
    }
}
