use std::{collections::BTreeMap, sync::Arc};

use mesh_core::{Endpoint, balance::subsetting};

/// Endpoints by their address.
pub(super) type Endpoints = BTreeMap<Arc<str>, Arc<Endpoint>>;

/// The endpoints as they are listed, and those of them that this client uses.
#[derive(Default)]
pub(super) struct Listed {
    all: Endpoints,
    by: Option<subsetting::Config>,
    /// `None`: all of them.
    used: Option<Endpoints>,
}

impl Listed {
    pub(super) fn new(by: Option<subsetting::Config>) -> Self {
        Self { by, used: by.map(|_| Endpoints::new()), ..Self::default() }
    }

    pub(super) fn all(&self) -> &Endpoints {
        &self.all
    }

    pub(super) fn used(&self) -> &Endpoints {
        self.used.as_ref().unwrap_or(&self.all)
    }

    /// Applies changes; `None` is gone. Whether anything has changed, and whose use has. With subsetting O(n), at most
    /// O(n log n), for all changes together.
    pub(super) fn change(
        &mut self,
        changes: impl IntoIterator<Item = (Arc<str>, Option<Endpoint>)>,
    ) -> (bool, Vec<Arc<str>>) {
        let mut touched = Vec::new();
        for (address, endpoint) in changes {
            let known = self.all.get(&address).map(|known| &**known);
            if known == endpoint.as_ref() {
                continue;
            }
            match endpoint {
                Some(endpoint) => self.all.insert(address.clone(), Arc::new(endpoint)),
                None => self.all.remove(&address),
            };
            touched.push(address);
        }
        let has_changed = !touched.is_empty();
        if has_changed && self.by.is_some() {
            touched = self.select();
        }
        (has_changed, touched)
    }

    /// Uses another share from now on. All uses may have changed.
    pub(super) fn set_subsetting(&mut self, by: Option<subsetting::Config>) {
        self.by = by;
        self.select();
    }

    /// Chooses anew; returns whose use has changed.
    fn select(&mut self) -> Vec<Arc<str>> {
        let Some(by) = &self.by else {
            self.used = None;
            return Vec::new();
        };
        let addresses: Vec<&Arc<str>> = self.all.keys().collect();
        let endpoints: Vec<&Arc<Endpoint>> = self.all.values().collect();
        let subset = by.select(&addresses);
        let weights = subset.weights(|index| endpoints[index].weight());
        let before = self.used.take().unwrap_or_default();
        let mut used = Endpoints::new();
        for (index, weight) in subset.indices().zip(weights) {
            let listed = endpoints[index];
            let own = Endpoint::clone(listed).with_weight(weight);
            let endpoint = match before.get(addresses[index]) {
                // What is the same stays the same: it is known by its place in memory.
                Some(known) if **known == own => known.clone(),
                Some(_) | None if **listed == own => listed.clone(),
                Some(_) | None => Arc::new(own),
            };
            used.insert(addresses[index].clone(), endpoint);
        }
        let gone = before.keys().filter(|address| !used.contains_key(*address));
        let new = used.iter().filter(|(address, endpoint)| {
            before.get(*address).is_none_or(|known| !Arc::ptr_eq(known, endpoint))
        });
        let touched = gone.chain(new.map(|(address, _)| address)).cloned().collect();
        self.used = Some(used);
        touched
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::{Weight, balance::subsetting::Random};

    use super::*;

    fn endpoints(numbers: std::ops::Range<u32>) -> Vec<(Arc<str>, Option<Endpoint>)> {
        let endpoint = |number| Endpoint::new(format!("10.0.0.{number}:80"));
        numbers.map(endpoint).map(|one| (one.address().clone(), Some(one))).collect()
    }

    fn random(size: u32) -> Option<subsetting::Config> {
        Some(subsetting::Config::Random(Random::new(size, 7).unwrap()))
    }

    #[test]
    fn who_is_gone_is_replaced_and_nobody_else_is_touched() {
        let mut listed = Listed::new(random(5));
        let (changed, touched) = listed.change(endpoints(0..20));
        assert!(changed);
        assert_eq!((listed.all().len(), listed.used().len(), touched.len()), (20, 5, 5));

        let unused: Vec<_> = listed
            .all()
            .keys()
            .filter(|address| !listed.used().contains_key(*address))
            .cloned()
            .collect();
        let (changed, touched) = listed.change([(unused[0].clone(), None)]);
        assert!(changed && touched.is_empty(), "nobody used it");

        let gone = listed.used().keys().next().unwrap().clone();
        let (_, touched) = listed.change([(gone.clone(), None)]);
        assert_eq!(listed.used().len(), 5);
        assert_eq!(touched.len(), 2, "who is gone, and who takes its place: {touched:?}");
        assert!(touched.contains(&gone));
        assert_eq!(listed.change([(gone, None)]), (false, Vec::new()));
    }

    #[test]
    fn a_new_weight_is_told_and_the_choice_stays() {
        let mut listed = Listed::new(random(2));
        listed.change(endpoints(0..9));
        let used: Vec<_> = listed.used().keys().cloned().collect();
        let heavy = Endpoint::new(used[0].clone()).with_weight(Weight::new(3).unwrap());
        let (_, touched) = listed.change([(used[0].clone(), Some(heavy))]);
        assert_eq!(touched, used[..1]);
        assert_eq!(listed.used()[&used[0]].weight().get(), 3);

        listed.set_subsetting(None);
        assert_eq!(listed.used().len(), 9);
    }
}
