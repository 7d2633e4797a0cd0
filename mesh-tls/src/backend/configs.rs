//! The rustls configurations that one generation has been asked for.
//!
//! To make one is a tenth of a handshake's work. They live in the generation and not in the connector or acceptor that
//! uses them: one of those may be idle for days, and would keep a private key and a trust that have been replaced.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// How many of each kind a generation keeps. A program has one or two for each of its ports and upstreams; one with more
/// makes some of them more than once.
const MOST: usize = 64;

/// Configurations by what they were made for.
pub(crate) struct Configs<K, C>(Mutex<Vec<(K, Arc<C>)>>);

// === impl Configs ===

impl<K: PartialEq, C> Configs<K, C> {
    /// The one for `key`, made if need be.
    ///
    /// # Errors
    ///
    /// That of `make`.
    pub(crate) fn get<E>(
        &self,
        key: K,
        make: impl FnOnce(&K) -> Result<C, E>,
    ) -> Result<Arc<C>, E> {
        let made = |configs: &[(K, Arc<C>)]| {
            configs.iter().find(|(of, _)| *of == key).map(|(_, config)| Arc::clone(config))
        };
        if let Some(config) = made(&self.lock()) {
            return Ok(config);
        }
        // Not under the lock: others need not wait. A race of two handshakes makes it twice; both are right.
        let config = Arc::new(make(&key)?);
        let mut configs = self.lock();
        if let Some(first) = made(&configs) {
            return Ok(first);
        }
        if configs.len() >= MOST {
            configs.clear();
        }
        configs.push((key, Arc::clone(&config)));
        Ok(config)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(K, Arc<C>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, C> Default for Configs<K, C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K, C> fmt::Debug for Configs<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.0.lock().map_or(0, |configs| configs.len());
        write!(f, "{kept} configurations")
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn one_is_made_once_for_each_key_and_there_are_not_many() {
        let configs = Configs::<usize, usize>::default();
        let mut made = 0;
        let mut get = |key| {
            let config = configs.get(key, |key| {
                made += 1;
                Ok::<_, Infallible>(*key)
            });
            (*config.unwrap(), made)
        };
        assert_eq!([get(7), get(8), get(7), get(8)], [(7, 1), (8, 2), (7, 2), (8, 2)]);
        for key in 0..10_000 {
            assert_eq!(get(key).0, key);
        }
        assert!(configs.lock().len() <= MOST);
    }

    #[test]
    fn what_cannot_be_made_is_not_kept() {
        let configs = Configs::<u8, u8>::default();
        assert_eq!(configs.get(1, |_| Err("no")).err(), Some("no"));
        assert_eq!(configs.get(1, |_| Ok::<_, Infallible>(3)).as_deref(), Ok(&3));
    }
}
