//! Instructions and allocations of a call, counted by valgrind's callgrind.
//!
//! The program starts itself once more under callgrind, with the argument [`CHILD`]. There each case makes so many
//! calls, then twice as many, and callgrind writes down what each of the two cost; the difference is the calls alone,
//! without what is made once. Allocations are the calls to the C library's allocator, so the program needs none
//! of its own, which would slow down what is measured.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::Case;

/// The argument that makes the report's program count instead.
pub const CHILD: &str = "--counted-by-callgrind";

/// What a call costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Count {
    /// Instructions, in user space.
    pub instructions: f64,
    /// Allocations.
    pub allocations: f64,
}

/// Counts all cases, in the order in which [`child`] runs them. `only` is handed on to the child, which has to come to the
/// same cases by it.
///
/// # Errors
///
/// In words, if valgrind is not there or does not do what is asked: the report goes on without.
pub fn measure(cases: &[Case], only: Option<&str>) -> Result<Vec<Count>, String> {
    let arguments: Vec<_> = std::iter::once(CHILD).chain(only).collect();
    let parts = profile(&arguments, 3 * cases.len())?;
    let count = |(case, part): (&Case, &[Part])| {
        let each = |short: u64, long: u64| long.saturating_sub(short) as f64 / case.calls() as f64;
        Count {
            instructions: each(part[1].instructions, part[2].instructions),
            allocations: each(part[1].allocations, part[2].allocations),
        }
    };
    Ok(cases.iter().zip(parts.chunks_exact(3)).map(count).collect())
}

/// Starts this program once more under callgrind, with these arguments, and reads the profiles that it wrote: one for
/// each call of [`begin_a_new_part`], which are so many.
///
/// # Errors
///
/// As [`measure`].
pub fn profile(arguments: &[&str], parts: usize) -> Result<Vec<Part>, String> {
    let directory = Scratch::new().map_err(|error| format!("no directory to count in: {error}"))?;
    let out = directory.0.join("out");
    let child = env::current_exe().map_err(|error| error.to_string())?;
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--compress-strings=no"])
        .arg("--dump-before=*begin_a_new_part*")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(child)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(format!("valgrind failed: {status}")),
        Err(error) => return Err(format!("valgrind cannot be started: {error}")),
    }
    (1..=parts).map(|part| read(&out.with_extension(part.to_string()))).collect()
}

/// What runs under callgrind.
pub fn child(cases: &[Case]) {
    for case in cases {
        // What happens once has happened: symbols are bound, averages have begun.
        case.run(case.calls());
        begin_a_new_part(1);
        case.run(case.calls());
        begin_a_new_part(2);
        case.run(2 * case.calls());
        begin_a_new_part(3);
    }
}

/// Where callgrind writes down what it has counted and begins anew: it knows this function by its name.
#[inline(never)]
pub fn begin_a_new_part(part: u32) {
    std::hint::black_box(part);
}

/// What happened between two of these moments.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Part {
    /// Instructions, in user space.
    pub instructions: u64,
    /// Allocations.
    pub allocations: u64,
}

fn read(path: &Path) -> Result<Part, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse(&text).ok_or_else(|| format!("{}: not what callgrind writes", path.display()))
}

/// Reads a profile: `totals:` for the instructions, and after each `cfn=` with an allocating function its `calls=`.
fn parse(profile: &str) -> Option<Part> {
    let mut part = Part { instructions: 0, allocations: 0 };
    let mut allocates = false;
    let mut totals = None;
    for line in profile.lines() {
        if let Some(function) = line.strip_prefix("cfn=") {
            allocates = matches!(
                function.split('\'').next(),
                Some("malloc" | "calloc" | "realloc" | "aligned_alloc" | "posix_memalign")
            );
        } else if let Some(calls) = line.strip_prefix("calls=")
            && allocates
        {
            part.allocations += calls.split(' ').next()?.parse::<u64>().ok()?;
        } else if let Some(sum) = line.strip_prefix("totals: ") {
            totals = sum.trim().parse().ok();
        }
    }
    part.instructions = totals?;
    Some(part)
}

/// A directory that is gone when it is no longer needed.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let path = env::temp_dir().join(format!("mesh-benches-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left-overs in a temporary directory harm nobody.
        drop(fs::remove_dir_all(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
events: Ir
fn=one
1 10
cfn=malloc
calls=3 0
1 300
cfn=free
calls=5 0
1 50
fn=two
cfn=realloc
calls=1 0
2 9
totals: 369
";

    #[test]
    fn allocations_are_counted_and_frees_are_not() {
        assert_eq!(parse(PROFILE), Some(Part { instructions: 369, allocations: 4 }));
    }

    #[test]
    fn a_profile_that_was_cut_off_is_none() {
        let cut = PROFILE.replace("totals", "tot");
        assert_eq!(parse(&cut), None);
    }
}
