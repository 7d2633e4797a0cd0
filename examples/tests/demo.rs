//! The program as it runs without a configuration. In a test program of its own: it needs a good part of the machine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-proxy"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null()).output().unwrap()
}

/// The number that stands before `unit` in the summary's line.
fn number(summary: &str, line: &str, index: usize) -> f64 {
    let line = summary
        .lines()
        .find_map(|text| text.trim_start().strip_prefix(line))
        .unwrap_or_else(|| panic!("no {line:?} in\n{summary}"));
    let numbers: Vec<f64> = line
        .split(|c: char| !(c.is_ascii_digit() || c == '.'))
        .filter_map(|word| word.parse().ok())
        .collect();
    *numbers.get(index).unwrap_or_else(|| panic!("no number {index} in {line:?}"))
}

#[test]
fn without_arguments_it_shows_what_the_mesh_does() {
    let output = run(&["--for", "10s"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}\n{errors}");
    assert!(!text.contains('\x1b'), "no escape sequences where no terminal is");
    let requests = number(&text, "requests", 0);
    // How many it can be is the machine's own affair.
    assert!(requests > 0.0, "{text}");
    assert!(number(&text, "success rate", 0) >= 99.0, "{text}");
    // On a machine that is busy with other things three failures in a row may not come about in four seconds.
    if requests > 200.0 {
        assert!(text.contains("payment-v1-b ejected by consecutive_5xx for 30 s"), "{text}");
        assert_eq!(number(&text, "ejections", 0), 1.0, "{text}");
    }
    // Three failures until the ejection, which weigh more among few.
    let attempts = number(&text, "attempts a request", 0);
    assert!(attempts >= 1.0 && (attempts < 1.2 || requests <= 50.0), "{text}");
    let (tried, let_in, refused) = (
        number(&text, "rogue connections", 0),
        number(&text, "rogue connections", 1),
        number(&text, "rogue connections", 2),
    );
    assert!(tried > 0.0, "{text}");
    assert_eq!(let_in, 0.0, "{text}");
    // The last ones may have been turned away and not be counted yet: their endpoint lets them read why first.
    assert!(refused + 2.0 >= tried && (refused > 0.0 || tried < 3.0), "{text}");
}

#[test]
fn the_command_line_is_explained() {
    let text = String::from_utf8(run(&["--help"]).stdout).unwrap();
    for option in
        ["--config", "--check", "--for", "--threads", "NO_COLOR", "SIGHUP", "SIGTERM", "Exit codes"]
    {
        assert!(text.contains(option), "{option}");
    }
    let output = run(&["--confg"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("there is no such option"));
}

#[test]
fn on_a_terminal_it_draws() {
    let mut script = Command::new("script");
    script.args(["-qec", concat!(env!("CARGO_BIN_EXE_mesh-proxy"), " --for 4s"), "/dev/null"]);
    script.env_remove("RUST_LOG").stdin(Stdio::null());
    for no_colour in [false, true] {
        if no_colour {
            script.env("NO_COLOR", "1");
        } else {
            script.env_remove("NO_COLOR");
        }
        let Ok(output) = script.output() else {
            eprintln!("skipped: there is no script(1) on this machine");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.contains("\x1b[H"), "it redraws: {text}");
        assert!(text.contains("\x1b[?1049l"), "and leaves the terminal as it was: {text}");
        assert_eq!(text.contains("\x1b[32m"), !no_colour, "{text}");
        assert!(text.contains("success rate"), "the summary stays: {text}");
    }
}
