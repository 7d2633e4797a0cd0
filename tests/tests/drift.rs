//! What is said twice must stay the same: docs, module lists, folders, sizes.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its files has failed")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Arithmetic of a retry: it has no layer of its own.
const WITHOUT_TWIN: [&str; 2] = ["backoff", "budget"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The public modules of a library, in the order of its `lib.rs`.
fn modules(library: &str) -> Vec<String> {
    read(&format!("{library}/src/lib.rs"))
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect()
}

fn source_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["mesh-core", "mesh-tower", "mesh-tls", "examples", "benches", "tests"]
            .map(|member| root().join(member))
            .into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                files.push(entry);
            }
        }
    }
    files
}

/// Lines of code without the tests at the bottom, the comments and the blank lines.
fn code_lines(text: &str) -> usize {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let counts = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    code.lines().filter(counts).count()
}

#[test]
fn every_machine_has_its_twin() {
    let tower = modules("mesh-tower");
    for machine in modules("mesh-core") {
        let expected = !WITHOUT_TWIN.contains(&&*machine);
        assert_eq!(tower.contains(&machine), expected, "{machine}");
        if expected {
            assert!(root().join(format!("mesh-tower/src/{machine}/mod.rs")).exists(), "{machine}");
        }
    }
}

#[test]
fn both_libraries_list_the_policies_in_the_order_of_a_request() {
    let core: Vec<_> =
        modules("mesh-core").into_iter().filter(|name| !WITHOUT_TWIN.contains(&&**name)).collect();
    let tower: Vec<_> =
        modules("mesh-tower").into_iter().filter(|name| core.contains(name)).collect();
    assert_eq!(core, tower);
    assert!(core.len() >= 7, "the list was found: {core:?}");
}

#[test]
fn no_file_is_longer_than_500_lines_of_code() {
    let files = source_files();
    assert!(files.len() > 100, "the files were found: {}", files.len());
    let long: Vec<_> = files
        .iter()
        .filter(|file| !file.ends_with("tests.rs") && !file.to_string_lossy().contains("/tests/"))
        .map(|file| (code_lines(&fs::read_to_string(file).unwrap()), file))
        .filter(|(lines, _)| *lines > 500)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn the_version_is_the_same_everywhere() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(read("CHANGELOG.md").contains(&format!("\n## {version}")), "CHANGELOG.md");
    assert!(read("SECURITY.md").contains(&format!("version {version}")), "SECURITY.md");
}

#[test]
fn the_readme_says_the_commands_that_ci_runs() {
    let (readme, ci) = (read("README.md"), read(".ci/run"));
    for command in ["cargo test --workspace", "--bin mesh-proxy"] {
        assert!(readme.contains(command), "README.md: {command}");
        assert!(ci.contains(command), ".ci/run: {command}");
    }
}

#[test]
fn relative_links_lead_somewhere() {
    let at_the_root =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"];
    let below = ["examples/README.md", "benches/README.md", "tests/fuzz/README.md"];
    for page in at_the_root.into_iter().chain(below) {
        let text = read(page);
        let folder = root().join(page).with_file_name("");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or(link);
            if !path.is_empty() && !path.contains("://") {
                assert!(folder.join(path).exists(), "{page}: {link}");
            }
        }
    }
}

#[test]
fn the_counter_of_code_lines_counts() {
    let text =
        "//! doc\n\nfn a() {}\n// why\nfn b() {}\n\n#[cfg(test)]\nmod tests {\n    fn c() {}\n}\n";
    assert_eq!(code_lines(text), 2);
}
