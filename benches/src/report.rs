//! The table: each figure with its bar, and the peers' in the same run.

use std::time::Duration;

use crate::{
    Case, choosing,
    count::{self, Count},
    decisions, machines, peers, stack,
    time::{self, Times},
};

/// What a section of the report shows.
#[derive(Debug)]
struct Section {
    title: &'static str,
    cases: Vec<Case>,
}

/// A bar: a figure of a case that must not be higher.
struct Bar {
    case: &'static str,
    figure: Figure,
    limit: f64,
}

#[derive(Clone, Copy)]
enum Figure {
    Instructions,
    Allocations,
    Nanos,
    /// Instructions, less those of another case.
    InstructionsBeyond(&'static str),
    /// Nanoseconds, less those of another case.
    NanosBeyond(&'static str),
    /// Two threads against one.
    Ratio,
    /// Nanoseconds against those of another case.
    NanosOf(&'static str),
    /// Instructions against those of another case.
    InstructionsOf(&'static str),
}

/// What must hold. The sources are the project's own goals.
const BARS: [Bar; 14] = [
    bar("full client stack", Figure::Instructions, 1_200.0),
    bar("full client stack", Figure::InstructionsBeyond(ALONE), 1_200.0),
    bar("full client stack", Figure::InstructionsOf(PEERS), 0.2),
    bar("full client stack", Figure::Allocations, 0.0),
    bar("full client stack", Figure::Nanos, 250.0),
    bar("full client stack", Figure::NanosBeyond(ALONE), 250.0),
    bar("full client stack", Figure::Ratio, 1.5),
    bar("full client stack", Figure::NanosOf(PEERS), 0.2),
    bar("breaker + outlier, no clock", Figure::Nanos, 60.0),
    bar("breaker + outlier, and two looks at the clock", Figure::Nanos, 60.0),
    bar("breaker + outlier, layers", Figure::Nanos, 60.0),
    bar("breaker + outlier, layers", Figure::NanosOf("tower-resilience breaker + outlier"), 0.2),
    bar("pick, 1000 endpoints", Figure::InstructionsOf("pick, 10 endpoints"), 1.1),
    bar("pick, 10000 endpoints", Figure::InstructionsOf("pick, 10 endpoints"), 1.1),
];

const ALONE: &str = "service alone";

const PEERS: &str = "tower: all of these, p2c over 10, breaker";

const fn bar(case: &'static str, figure: Figure, limit: f64) -> Bar {
    Bar { case, figure, limit }
}

/// With `only`, the cases whose name, or whose section's title, contains it.
fn sections(only: Option<&str>) -> Vec<Section> {
    let section = |title, cases| Section { title, cases };
    let mut sections = vec![
        section("Client stack around a service that does nothing", stack::cases()),
        section("Peers: the same from tower's parts", peers::stacks()),
        section("Breaker and outlier detection together", machines::cases()),
        section("Breaker and outlier detection as layers", vec![stack::layers()]),
        section("Peers: breakers and outlier detection", peers::breakers()),
        section("Pick", machines::picks()),
        section("Peers: pick", peers::picks()),
        section("Choosing: endpoints", choosing::picks()),
        section("Choosing: peers", peers::choosing()),
        section("Choosing: routes", choosing::routes()),
        section("Choosing: router around a service that does nothing", choosing::routers()),
    ];
    sections.extend(decisions::groups().into_iter().map(|(title, cases)| section(title, cases)));
    if let Some(only) = only {
        for Section { title, cases } in &mut sections {
            cases.retain(|case| title.contains(only) || case.name().contains(only));
        }
        sections.retain(|section| !section.cases.is_empty());
    }
    sections
}

/// What one case cost.
struct Row {
    times: Times,
    count: Option<Count>,
}

/// Measures everything and prints it as markdown. With `only`, the cases whose name, or whose section's title, contains it.
///
/// `repetitions` of about `span` each are made for every case on one thread, and as many on two.
pub fn print(only: Option<&str>, repetitions: usize, span: Duration) {
    let sections = sections(only);
    let titles: Vec<_> = sections.iter().map(|s| (s.title, s.cases.len())).collect();
    let cases: Vec<Case> = sections.into_iter().flat_map(|section| section.cases).collect();
    let counts = count::measure(&cases, only);
    let times = time::measure(&cases, repetitions, span);
    let names: Vec<&str> = cases.iter().map(Case::name).collect();
    let row = |(index, &times): (usize, &Times)| Row {
        times,
        count: counts.as_ref().ok().map(|counts| counts[index]),
    };
    let rows: Vec<Row> = times.iter().enumerate().map(row).collect();

    println!(
        "Medians of {repetitions} repetitions. ns: CPU time of a call on one thread (wall); on"
    );
    println!("two threads that share the client: CPU time of a call, against one thread's.");
    if let Err(why) = &counts {
        println!("Instructions and allocations were not counted: {why}.");
    }
    let mut next = 0;
    for (title, length) in titles {
        let range = next..next + length;
        next += length;
        println!("\n## {title}\n");
        println!("| | instructions | allocations | ns (wall) | ns, two threads | ratio |");
        println!("| --- | ---: | ---: | ---: | ---: | ---: |");
        for (name, row) in names[range.clone()].iter().zip(&rows[range]) {
            print_row(name, row);
        }
    }
    print_bars(&names, &rows);
}

fn print_row(name: &str, Row { times, count }: &Row) {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let instructions = or_dash(count.map(|count| format!("{:.0}", count.instructions)));
    let allocations = or_dash(count.map(|count| format!("{:.2}", count.allocations)));
    let one = format!("{:.1} ({:.1})", times.one.cpu, times.one.wall);
    let two = or_dash(times.two.map(|two| format!("{:.1}", two.cpu)));
    let ratio = or_dash(times.two.map(|two| format!("{:.2}", two.cpu / times.one.cpu)));
    println!("| {name} | {instructions} | {allocations} | {one} | {two} | {ratio} |");
}

fn print_bars(names: &[&str], rows: &[Row]) {
    let find = |name: &str| {
        let index = names.iter().position(|known| *known == name)?;
        rows.get(index)
    };
    println!("\n## Bars\n");
    println!("| | figure | bar | measured | |");
    println!("| --- | --- | ---: | ---: | --- |");
    for Bar { case, figure, limit } in &BARS {
        let Some(row) = find(case) else { continue };
        let (what, value) = figure.of(row, find);
        let (measured, verdict) = match value {
            Some(value) if value <= *limit => (format!("{value:.2}"), "ok"),
            Some(value) => (format!("{value:.2}"), "**over**"),
            None => ("-".to_owned(), "not measured"),
        };
        println!("| {case} | {what} | {limit} | {measured} | {verdict} |");
    }
}

impl Figure {
    /// What it is called, and its value in this row.
    fn of<'a>(self, row: &Row, find: impl Fn(&str) -> Option<&'a Row>) -> (String, Option<f64>) {
        let instructions = |row: &Row| row.count.map(|count| count.instructions);
        let nanos = |row: &Row| Some(row.times.one.cpu);
        let against = |other, figure: &dyn Fn(&Row) -> Option<f64>| {
            figure(row).zip(find(other).and_then(figure))
        };
        match self {
            Self::Instructions => ("instructions".to_owned(), instructions(row)),
            Self::Allocations => {
                ("allocations".to_owned(), row.count.map(|count| count.allocations))
            }
            Self::Nanos => ("ns".to_owned(), nanos(row)),
            Self::Ratio => {
                let ratio = row.times.two.map(|two| two.cpu / row.times.one.cpu);
                ("two threads / one".to_owned(), ratio)
            }
            Self::InstructionsBeyond(other) => {
                let net = against(other, &instructions).map(|(own, other)| own - other);
                (format!("instructions beyond {other}"), net)
            }
            Self::NanosBeyond(other) => {
                let net = against(other, &nanos).map(|(own, other)| own - other);
                (format!("ns beyond {other}"), net)
            }
            Self::InstructionsOf(other) => {
                let share = against(other, &instructions).map(|(own, other)| own / other);
                (format!("instructions / {other}"), share)
            }
            Self::NanosOf(other) => {
                let share = against(other, &nanos).map(|(own, other)| own / other);
                (format!("ns / {other}"), share)
            }
        }
    }
}

/// Counts under callgrind: what the program does when [`print()`] starts it again.
pub fn count(only: Option<&str>) {
    let cases: Vec<Case> = sections(only).into_iter().flat_map(|section| section.cases).collect();
    count::child(&cases);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bar_names_a_case() {
        let sections = sections(None);
        let names: Vec<_> =
            sections.iter().flat_map(|section| &section.cases).map(Case::name).collect();
        for Bar { case, figure, .. } in &BARS {
            assert!(names.contains(case), "{case}");
            if let Figure::NanosOf(other)
            | Figure::InstructionsOf(other)
            | Figure::NanosBeyond(other)
            | Figure::InstructionsBeyond(other) = figure
            {
                assert!(names.contains(other), "{other}");
            }
        }
    }

    #[test]
    fn each_case_runs() {
        for case in sections(None).iter().flat_map(|section| &section.cases) {
            case.run(3);
            case.run_on_two_threads(3);
        }
    }

    #[test]
    fn no_two_cases_have_one_name() {
        let sections = sections(None);
        let mut names: Vec<_> =
            sections.iter().flat_map(|section| &section.cases).map(Case::name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
