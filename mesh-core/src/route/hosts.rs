use super::{head::split_port, index::Folded};
use crate::InvalidConfig;

/// What belongs to which host: the virtual host of a request, by its authority. Case does not count.
///
/// | | first comes |
/// | --- | --- |
/// | 1 | the name as it was sent, with its port; then without |
/// | 2 | the longest of `*.example.com`, `*-eu.example.com`: a name that ends so |
/// | 3 | the longest of `example.*`: a name that begins so |
/// | 4 | `*` |
///
/// A wildcard stands for one character or more, of any number of labels (Envoy `VirtualHost.domains`). The port is
/// ignored where no name has it (Istio's `ignorePortInHostMatching`).
///
/// To find costs `log n`, and where no name matches as a whole `log n` for each different length of a wildcard. Nothing is
/// allocated.
///
/// ```
/// use mesh_core::route::Hosts;
///
/// let hosts = Hosts::new([("shop", 1), ("*.example.com", 2), ("*.eu.example.com", 3), ("*", 4)]).unwrap();
/// let of = |authority| *hosts.find(authority).unwrap();
/// assert_eq!([of("Shop:8080"), of("a.example.com"), of("a.eu.example.com"), of("cart")], [1, 2, 3, 4]);
/// assert!(Hosts::new([("a.*.com", 1)]).is_err());
/// assert!(Hosts::new([("a", 1), ("A", 2)]).is_err());
/// ```
#[derive(Clone, Debug)]
pub struct Hosts<T> {
    exact: Names<T>,
    suffixes: Names<T>,
    prefixes: Names<T>,
    any: Option<T>,
}

/// Names in lower case, in order.
#[derive(Clone, Debug)]
struct Names<T> {
    names: Vec<(Box<str>, T)>,
    /// The lengths of the names, each once, the longest first.
    lengths: Vec<usize>,
}

impl<T> Hosts<T> {
    /// Names and wildcards, each with what belongs to it. O(n log n).
    ///
    /// # Errors
    ///
    /// An empty name, a `*` elsewhere than at one end, a name that is there twice.
    pub fn new<N: AsRef<str>>(
        hosts: impl IntoIterator<Item = (N, T)>,
    ) -> Result<Self, InvalidConfig> {
        let (mut exact, mut suffixes, mut prefixes) = (Vec::new(), Vec::new(), Vec::new());
        let mut any = None;
        for (host, value) in hosts {
            let host = host.as_ref();
            let name = host.to_ascii_lowercase();
            let (list, name) = match (name.strip_prefix('*'), name.strip_suffix('*')) {
                (Some(""), _) => {
                    if any.replace(value).is_some() {
                        return Err(twice(host));
                    }
                    continue;
                }
                (Some(suffix), _) => (&mut suffixes, suffix),
                (None, Some(prefix)) => (&mut prefixes, prefix),
                (None, None) => (&mut exact, name.as_str()),
            };
            if name.is_empty() || name.contains('*') {
                let expected = "a name, with * at one of its ends if at all";
                return Err(InvalidConfig::new("hosts", format!("{host:?}"), expected));
            }
            list.push((Box::<str>::from(name), value));
        }
        Ok(Self {
            exact: Names::new(exact)?,
            suffixes: Names::new(suffixes)?,
            prefixes: Names::new(prefixes)?,
            any,
        })
    }

    /// What belongs to the host of that authority.
    pub fn find(&self, authority: &str) -> Option<&T> {
        let bare = split_port(authority).0;
        let with_port = (bare.len() < authority.len()).then_some(authority);
        let forms = || with_port.into_iter().chain([bare]).map(|form| Folded::new(form.as_bytes()));
        let suffix = |form: Folded<'_>| {
            self.suffixes.longest(form, |length| form.part(form.len() - length..))
        };
        let prefix = |form: Folded<'_>| self.prefixes.longest(form, |length| form.part(..length));
        forms()
            .find_map(|form| self.exact.get(form))
            .or_else(|| forms().find_map(suffix))
            .or_else(|| forms().find_map(prefix))
            .or(self.any.as_ref())
    }
}

impl<T> Names<T> {
    fn new(mut names: Vec<(Box<str>, T)>) -> Result<Self, InvalidConfig> {
        names.sort_by(|(a, _), (b, _)| a.cmp(b));
        if let Some(pair) = names.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(twice(&pair[0].0));
        }
        let mut lengths: Vec<_> = names.iter().map(|(name, _)| name.len()).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        Ok(Self { names, lengths })
    }

    fn get(&self, name: Folded<'_>) -> Option<&T> {
        let found = |(known, _): &(Box<str>, T)| name.compare(known.as_bytes());
        self.names.binary_search_by(found).ok().map(|at| &self.names[at].1)
    }

    /// The longest name that is the `part` of that length; one character at least is left to the wildcard.
    fn longest<'a>(
        &self,
        host: Folded<'a>,
        part: impl Fn(usize) -> Option<Folded<'a>>,
    ) -> Option<&T> {
        let fitting = self.lengths.iter().filter(|length| **length < host.len());
        { fitting }.find_map(|length| self.get(part(*length)?))
    }
}

fn twice(host: &str) -> InvalidConfig {
    InvalidConfig::new("hosts", format!("{host:?}"), "each name once")
}
