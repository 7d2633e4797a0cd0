//! What a policy says of a SPIFFE ID. Here an ID has no `spiffe://`.

use super::text::is_glob;

/// `*` of a namespace stands for any letters; what is before `/ns/` counts for nothing, and something must follow (Istio
/// `.*/ns/<value>/.*`).
pub(super) fn is_in_namespace(id: &str, pattern: &str) -> bool {
    slashes(id).any(|at| {
        let Some(behind) = id[at..].strip_prefix("/ns/") else { return false };
        // The value, and then a slash: of one without `*` this is the segment.
        slashes(behind).any(|end| is_glob(pattern, &behind[..end]))
    })
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
        let is_account = |text: &str| {
            let rest = text.strip_prefix(&*self.account);
            rest.is_some_and(|rest| rest.is_empty() || (rest.starts_with('/') && rest.len() > 1))
        };
        slashes(id).filter(|at| *at > 0).any(|at| {
            let Some(behind) = id[at..].strip_prefix(&*self.namespace) else { return false };
            // At once, or after a slash that something stands before.
            is_account(behind) || slashes(behind).any(|at| at > 0 && is_account(&behind[at + 1..]))
        })
    }
}

/// Where the slashes are. What is looked for begins at one: nothing else need be compared.
fn slashes(text: &str) -> impl Iterator<Item = usize> {
    let bytes = text.bytes().enumerate();
    bytes.filter(|(_, byte)| *byte == b'/').map(|(at, _)| at)
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
