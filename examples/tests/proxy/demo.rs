use crate::support::{command, output};

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

#[tokio::test]
async fn without_arguments_it_shows_what_the_mesh_does() {
    let mut command = command();
    command.args(["--for", "9s"]);
    let output = output(command).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}\n{errors}");
    assert!(text.contains("payment-v1-b ejected by consecutive_5xx for 30 s"), "{text}");
    assert!(!text.contains('\x1b'), "no escape sequences where no terminal is");
    let requests = number(&text, "requests", 0);
    assert!(requests > 50.0, "{text}");
    assert!(number(&text, "success rate", 0) >= 99.0, "{text}");
    let attempts = number(&text, "attempts a request", 0);
    assert!(attempts > 1.0 && attempts < 1.2, "{text}");
    assert_eq!(number(&text, "ejections", 0), 1.0, "{text}");
    let (tried, let_in, refused) = (
        number(&text, "rogue connections", 0),
        number(&text, "rogue connections", 1),
        number(&text, "rogue connections", 2),
    );
    assert!(tried >= 3.0, "{text}");
    assert_eq!(let_in, 0.0, "{text}");
    assert!(refused >= tried, "{text}");
}

#[tokio::test]
async fn the_command_line_is_explained() {
    let mut help = command();
    help.arg("--help");
    let text = String::from_utf8(output(help).await.stdout).unwrap();
    for option in ["--config", "--check", "--for", "--threads", "NO_COLOR"] {
        assert!(text.contains(option), "{option}");
    }
    let mut wrong = command();
    wrong.arg("--confg");
    let output = output(wrong).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("there is no such option"));
}
