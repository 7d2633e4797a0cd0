//! The command line.

use std::{path::PathBuf, time::Duration};

use crate::config::duration;

pub(crate) const HELP: &str = "\
mesh-proxy: the mesh as a standalone proxy

Without --config it runs a demonstration: a service of three endpoints behind STRICT mutual TLS, one of which
begins to fail; a caller; and now and then a stranger without a certificate.

Usage: mesh-proxy [OPTIONS]

Options:
  --config DIR     run with the YAML files of this directory: proxy.yaml, endpoints.yaml, Istio documents
  --check          read and check the configuration and the files that it names, report every mistake, and do
                   nothing else (needs --config); like nginx -t
  --for DURATION   end the demonstration after this time (20s, 1m) with a summary; exit code 1 if fewer than
                   99 % of its requests succeed
  --threads N      worker threads; default 1: a proxy beside a service should leave the cores to the service,
                   and one thread needs no locks between them
  -h, --help       print this
  -V, --version    print the version

Environment:
  RUST_LOG         what is logged on stderr, e.g. info or mesh_tower=debug
  NO_COLOR         no colours

Signals:
  SIGHUP           read the directory again at once; it is followed without, too
  SIGTERM, SIGINT  accept nothing new, finish what is in flight, end; once more to end at once

Exit codes: 0 it ended as told, 1 it failed while running, 2 the command line or the configuration is wrong.
";

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) config: Option<PathBuf>,
    pub(crate) check: bool,
    pub(crate) run_for: Option<Duration>,
    pub(crate) threads: usize,
    pub(crate) help: bool,
    pub(crate) version: bool,
}

impl Args {
    /// Reads the arguments, the program's name left out.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut args = Self {
            config: None,
            check: false,
            run_for: None,
            threads: 1,
            help: false,
            version: false,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (name, mut inline) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            let mut value = |expected: &str| {
                inline
                    .take()
                    .or_else(|| arguments.next())
                    .filter(|value| !value.is_empty())
                    .ok_or_else(|| format!("{name}: a value is missing, expected {expected}"))
            };
            match name {
                "--config" => args.config = Some(value("a directory")?.into()),
                "--for" => {
                    args.run_for = Some(read(name, &value(DURATION)?, DURATION, duration::parse)?)
                }
                "--threads" => {
                    let number =
                        |text: &str| text.parse().ok().filter(|number| (1..=1024).contains(number));
                    args.threads = read(name, &value(THREADS)?, THREADS, number)?;
                }
                "--check" => args.check = true,
                "-h" | "--help" => args.help = true,
                "-V" | "--version" => args.version = true,
                _ => return Err(format!("{argument}: there is no such option; --help lists all")),
            }
            if inline.is_some() {
                return Err(format!("{name}: takes no value"));
            }
        }
        if args.check && args.config.is_none() {
            return Err("--check: what? give a directory with --config".into());
        }
        if args.run_for.is_some() && args.config.is_some() {
            return Err("--for: is for the demonstration, which --config replaces".into());
        }
        Ok(args)
    }
}

const DURATION: &str = "a duration such as 20s or 1m30s";
const THREADS: &str = "a number from 1 to 1024";

fn read<T>(
    name: &str,
    text: &str,
    expected: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, String> {
    parse(text).ok_or_else(|| format!("{name}: {text:?} is not allowed, expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read_in_both_forms() {
        let args = parse("--config dir --threads=4 --check").unwrap();
        assert_eq!((args.config, args.threads, args.check), (Some("dir".into()), 4, true));
        assert_eq!(parse("--for 20s").unwrap().run_for, Some(Duration::from_secs(20)));
        assert_eq!(parse("").unwrap().threads, 1);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, said) in [
            ("--confg dir", "no such option"),
            ("extra", "no such option"),
            ("--config", "a value is missing"),
            ("--for 20", "expected a duration"),
            ("--threads 0", "expected a number"),
            ("--check", "--config"),
            ("--check=yes --config d", "takes no value"),
            ("--config d --for 1s", "demonstration"),
        ] {
            assert!(parse(line).unwrap_err().contains(said), "{line}");
        }
    }
}
