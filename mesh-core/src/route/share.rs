use super::headers::HeaderChanges;
use crate::Labels;

/// One of the destinations that share a route's requests. It is drawn once for a request: retries stay there (Envoy).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Share<T> {
    destination: Option<T>,
    authority: Option<String>,
    request: HeaderChanges,
    response: HeaderChanges,
    criteria: Labels,
}

impl<T> Share<T> {
    /// That destination.
    pub fn new(destination: T) -> Self {
        Self::of(Some(destination))
    }

    /// None: its requests are answered 500 (a backend of Gateway API that does not exist).
    pub fn nowhere() -> Self {
        Self::of(None)
    }

    fn of(destination: Option<T>) -> Self {
        Self {
            destination,
            authority: None,
            request: HeaderChanges::none(),
            response: HeaderChanges::none(),
            criteria: Labels::default(),
        }
    }

    /// Its requests get this authority, unless the route sets one (Istio). Default what they have.
    #[must_use]
    pub fn with_authority(mut self, authority: Option<String>) -> Self {
        self.authority = authority;
        self
    }

    /// Changes the headers of its requests. Default nothing.
    #[must_use]
    pub fn with_request_headers(mut self, changes: HeaderChanges) -> Self {
        self.request = changes;
        self
    }

    /// Changes the headers of its responses. Default nothing.
    #[must_use]
    pub fn with_response_headers(mut self, changes: HeaderChanges) -> Self {
        self.response = changes;
        self
    }

    /// The labels that its requests want their endpoint to have, beside the route's, and in place of those of the same name.
    /// Default none.
    ///
    /// ```
    /// use mesh_core::route::{Forward, Share, Split};
    ///
    /// let canary = Share::new("shop").with_criteria([("version", "v2")].into_iter().collect());
    /// let split = Split::new(vec![(Share::new("shop"), 95), (canary, 5)])?;
    /// let forward = Forward::shares(split).with_criteria([("stage", "prod")].into_iter().collect());
    /// assert_eq!(forward.criteria().get("stage"), Some("prod"));
    /// # Ok::<(), mesh_core::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn with_criteria(mut self, criteria: Labels) -> Self {
        self.criteria = criteria;
        self
    }

    /// The destination; `None`: its requests are answered 500.
    pub fn destination(&self) -> Option<&T> {
        self.destination.as_ref()
    }

    /// The authority that its requests get.
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// The changes to its requests' headers.
    pub fn request_headers(&self) -> &HeaderChanges {
        &self.request
    }

    /// The changes to its responses' headers.
    pub fn response_headers(&self) -> &HeaderChanges {
        &self.response
    }

    /// The labels that its requests want their endpoint to have.
    pub fn criteria(&self) -> &Labels {
        &self.criteria
    }
}
