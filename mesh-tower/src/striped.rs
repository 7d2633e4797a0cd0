use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// More than the cores that one client keeps busy, as a rule; threads beyond it share.
const STRIPES: usize = 16;

/// A value that requests on all threads hold for a while, without fighting over one reference count.
///
/// A plain `Arc` that each request clones is one word that each core writes twice a request: on two cores that
/// doubles the cost of a request. Here each thread counts on a line of its own. A handle may be dropped on
/// any thread.
pub(crate) struct Striped<T>([Arc<Line<T>>; STRIPES]);

/// Holds the value of a [`Striped`].
pub(crate) struct Handle<T>(Arc<Line<T>>);

/// No two counts on one cache line.
#[repr(align(64))]
struct Line<T>(T);

impl<T: Clone> Striped<T> {
    /// The value is cloned once for each stripe: make it cheap to clone.
    pub(crate) fn new(value: &T) -> Self {
        Self(std::array::from_fn(|_| Arc::new(Line(value.clone()))))
    }
}

impl<T> Striped<T> {
    /// A handle counted by this thread.
    pub(crate) fn handle(&self) -> Handle<T> {
        Handle(self.0[STRIPE.with(|stripe| *stripe)].clone())
    }
}

impl<T> Deref for Striped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0[0].0
    }
}

impl<T> Deref for Handle<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Striped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

thread_local! {
    static STRIPE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Relaxed) % STRIPES
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_lives_as_long_as_any_handle() {
        let value = Arc::new(7);
        let gone = Arc::downgrade(&value);
        let striped = Striped::new(&value);
        drop(value);
        let handle = std::thread::scope(|scope| scope.spawn(|| striped.handle()).join().unwrap());
        drop(striped);
        assert_eq!(gone.upgrade().as_deref(), Some(&7));
        drop(handle);
        assert_eq!(gone.upgrade(), None);
    }

    #[test]
    fn threads_count_on_lines_of_their_own() {
        let striped = Striped::new(&());
        let here = striped.handle();
        let there = std::thread::scope(|scope| scope.spawn(|| striped.handle()).join().unwrap());
        assert!(!Arc::ptr_eq(&here.0, &there.0));
        assert!(Arc::ptr_eq(&here.0, &striped.handle().0));
    }
}
