//! The hash itself.

use mesh_core::balance::hash::{XxHash64, xxhash64};
use serde::Deserialize;

use crate::case::Case;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    seed: u64,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Hash {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
        input: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    hash: String,
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let Config { seed } = case.config()?;
    let Expect { hash: expected } = case.expect()?;
    let steps: Vec<Step> = case.steps()?;
    if steps.is_empty() {
        return Err("nothing is hashed".to_owned());
    }
    for Step::Hash { input, .. } in steps {
        let hash = xxhash64(input.as_bytes(), seed).to_string();
        // In two parts it is the same.
        let (left, right) = input.as_bytes().split_at(input.len() / 2);
        let mut parts = XxHash64::new(seed);
        parts.write(left);
        parts.write(right);
        if hash != expected || parts.finish().to_string() != hash {
            return Err(format!("{input:?}: {hash}, expected {expected}"));
        }
    }
    Ok(())
}
