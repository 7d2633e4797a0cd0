use super::matching::header_name;
use crate::InvalidConfig;

/// What becomes of headers: some are removed, then some are set, then some are added (Envoy removes first; Istio sets before
/// it adds).
///
/// ```
/// use mesh_core::route::HeaderChanges;
///
/// let changes = HeaderChanges::none().set("X-Via", "mesh").unwrap().add("x-hop", "1").unwrap().remove("cookie").unwrap();
/// let puts: Vec<_> = changes.puts().map(|put| (put.name(), put.value(), put.is_added())).collect();
/// assert_eq!(puts, [("x-via", "mesh", false), ("x-hop", "1", true)]);
/// assert_eq!(changes.removed().collect::<Vec<_>>(), ["cookie"]);
/// assert_eq!(HeaderChanges::none().set("a b", "1").unwrap_err().field(), "header");
/// assert_eq!(HeaderChanges::none().set("a", "1\n2").unwrap_err().field(), "value");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderChanges {
    removed: Vec<Box<str>>,
    puts: Vec<Put>,
}

/// A value that a header gets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Put {
    name: Box<str>,
    value: Box<str>,
    added: bool,
}

impl HeaderChanges {
    /// All stays as it is.
    pub fn none() -> Self {
        Self::default()
    }

    /// The header gets this value, and no other.
    ///
    /// # Errors
    ///
    /// A name or value that no header can have.
    pub fn set(self, name: &str, value: &str) -> Result<Self, InvalidConfig> {
        self.put(name, value, false)
    }

    /// The header gets this value beside those that it has.
    ///
    /// # Errors
    ///
    /// A name or value that no header can have.
    pub fn add(self, name: &str, value: &str) -> Result<Self, InvalidConfig> {
        self.put(name, value, true)
    }

    /// The header goes.
    ///
    /// # Errors
    ///
    /// A name that no header can have.
    pub fn remove(mut self, name: &str) -> Result<Self, InvalidConfig> {
        self.removed.push(header_name(name.to_ascii_lowercase())?);
        Ok(self)
    }

    fn put(mut self, name: &str, value: &str, added: bool) -> Result<Self, InvalidConfig> {
        let name = header_name(name.to_ascii_lowercase())?;
        if !value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f)) {
            return Err(InvalidConfig::new("value", format!("{value:?}"), "the value of a header"));
        }
        self.puts.push(Put { name, value: value.into(), added });
        // What is set stands before what is added, whatever the order in which it was said.
        self.puts.sort_by_key(|put| put.added);
        Ok(self)
    }

    /// These changes and then those of `later`, as one: what `later` sets wins, and what either removes is removed before
    /// anything is set.
    #[must_use]
    pub fn then(mut self, later: &Self) -> Self {
        self.removed.extend_from_slice(&later.removed);
        self.puts.extend_from_slice(&later.puts);
        self
    }

    /// The headers that go, before any value is put.
    pub fn removed(&self) -> impl Iterator<Item = &str> {
        self.removed.iter().map(|name| &**name)
    }

    /// The values, in their order.
    pub fn puts(&self) -> impl Iterator<Item = &Put> {
        self.puts.iter()
    }

    /// Whether all stays as it is.
    pub fn is_none(&self) -> bool {
        self.removed.is_empty() && self.puts.is_empty()
    }
}

impl Put {
    /// The header's name, in lower case.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether other values stay beside it.
    pub fn is_added(&self) -> bool {
        self.added
    }
}
