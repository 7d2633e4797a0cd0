//! Changes of state are told.

use super::*;

#[tokio::test(start_paused = true)]
async fn changes_of_state_are_told_with_the_names() {
    let log = Log::default();
    // Of one subscriber alone a line that speaks for the first time asks only its own thread whether anybody listens, and
    // keeps the answer for all; so there is another, which every thread has.
    drop(tracing::subscriber::set_global_default(tracing::subscriber::NoSubscriber::default()));
    let _guard = tracing::subscriber::set_default(log.clone());
    let layer = layer(1).named("shop").named_endpoint("10.0.0.1:80");
    let (service, _) = service(&layer, Script::default());
    trip(&service).await;
    tokio::time::advance(WAIT).await;
    service.oneshot(1).await.unwrap();
    let names = "upstream=\"shop\" endpoint=\"10.0.0.1:80\"";
    assert_eq!(
        *log.0.lock().unwrap(),
        [
            format!("INFO {names} from=closed to=open reason=2 failures in a row"),
            format!("INFO {names} from=open to=half-open reason=the wait is over"),
            format!("INFO {names} from=half-open to=closed reason=the probes succeeded"),
        ]
    );
}

/// Keeps the events of this crate as lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("mesh_tower")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
                if field.name() != "message" {
                    write!(self.0, " {}={value:?}", field.name()).unwrap();
                }
            }
        }
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
