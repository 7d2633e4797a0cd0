//! What a policy says of a SPIFFE ID. Here an ID has no `spiffe://`.

use super::text::is_glob;

/// `*` of a namespace stands for any letters; what is before `/ns/` counts for nothing, and something must follow (Istio
/// `.*/ns/<value>/.*`).
pub(super) fn is_in_namespace(id: &str, pattern: &str) -> bool {
    let mut rest = id;
    while let Some(at) = rest.find("/ns/") {
        let behind = &rest[at + "/ns/".len()..];
        // The value, and then a slash: of one without `*` this is the segment.
        if behind.match_indices('/').any(|(end, _)| is_glob(pattern, &behind[..end])) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// A service account of a namespace.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// `/ns/<namespace>/`
    namespace: Box<str>,
    /// `sa/<account>`
    account: Box<str>,
}

impl Account {
    /// `namespace/account`, or `account` of the policy's namespace. Istio's limits: no `*`, at most 320 letters.
    pub(super) fn parse(value: &str, namespace: &str) -> Option<Self> {
        let (namespace, account) = value.split_once('/').unwrap_or((namespace, value));
        let is_name = |name: &str| !name.is_empty() && !name.contains(['/', '*']);
        (is_name(namespace) && is_name(account) && value.len() <= 320).then(|| Self {
            namespace: format!("/ns/{namespace}/").into(),
            account: format!("sa/{account}").into(),
        })
    }

    /// Whole segments: `<domain>/ns/<namespace>/sa/<account>`, and whatever stands between and behind (Istio
    /// `.+/ns/<namespace>/(.+/|)sa/<account>(/.+)?`).
    pub(super) fn owns(&self, id: &str) -> bool {
        let namespaces = starts(id, &self.namespace).filter(|at| *at > 0);
        namespaces.into_iter().any(|at| {
            let behind = &id[at + self.namespace.len()..];
            starts(behind, &self.account).any(|at| {
                let begins = at == 0 || (at > 1 && behind.as_bytes()[at - 1] == b'/');
                let rest = &behind[at + self.account.len()..];
                begins && (rest.is_empty() || (rest.starts_with('/') && rest.len() > 1))
            })
        })
    }
}

/// Where `part` begins in `text`, places that overlap among them: `/ns/a/ns/a/` has two.
fn starts<'a>(text: &'a str, part: &'a str) -> impl Iterator<Item = usize> {
    (0..text.len()).filter(move |at| text.as_bytes()[*at..].starts_with(part.as_bytes()))
}

/// A trust domain, as a policy names it.
#[derive(Clone, Debug)]
pub(super) enum Domain {
    /// `*`
    Any,
    /// What is before the `*` and behind it; without one the name.
    Exact(Box<str>),
    Around(Box<str>, Box<str>),
}

impl Domain {
    pub(super) fn new(value: &str) -> Self {
        match value.split_once('*') {
            None => Self::Exact(value.into()),
            Some(("", "")) => Self::Any,
            Some((before, behind)) => Self::Around(before.into(), behind.into()),
        }
    }

    /// An ID without a path is of no named domain (Istio matches the slash too).
    pub(super) fn owns(&self, id: &str) -> bool {
        let domain = id.split_once('/').map(|(domain, _)| domain);
        match self {
            Self::Any => true,
            Self::Exact(name) => domain == Some(&**name),
            Self::Around(before, behind) => domain.is_some_and(|domain| {
                let rest = domain.strip_prefix(&**before);
                rest.is_some_and(|rest| rest.ends_with(&**behind))
            }),
        }
    }
}

/// A principal of a policy, once for each name of the mesh's trust domain (Istio `trustdomain.Bundle`).
pub(super) fn with_aliases(principal: &str, domains: &[String]) -> Vec<String> {
    let alone = || vec![principal.to_owned()];
    let Some((domain, path)) = principal.split_once('/') else { return alone() };
    let means = |name: &String| match domain.strip_prefix('*') {
        Some(suffix) => name.ends_with(suffix),
        None => name == domain,
    };
    // A bare `*` is any domain already.
    if domain == "*" || !(domain == "cluster.local" || domains.iter().any(means)) {
        return alone();
    }
    let mut all = Vec::new();
    for name in domains {
        let other = match domain.starts_with('*') && means(name) {
            true => principal.to_owned(),
            false => format!("{name}/{path}"),
        };
        if !all.contains(&other) {
            all.push(other);
        }
    }
    if all.is_empty() { alone() } else { all }
}
