//! Files in a form of their own: each list in them is a kind, and each entry of it a case.

use serde_json::{Map, Value, json};

use crate::case::Case;

/// A list, and which keys of its entries state what must come of them.
struct Kind {
    /// Where it stands: a key, or a key in a key.
    at: &'static str,
    states: &'static [&'static str],
}

const KINDS: &[Kind] = &[
    Kind { at: "/spiffe_ids", states: &["valid", "trust_domain", "path", "valid_as_leaf"] },
    Kind { at: "/trust_domains", states: &["valid", "trust_domain"] },
    Kind { at: "/from_segments", states: &["valid", "path"] },
    Kind { at: "/equality", states: &["equal"] },
    Kind { at: "/member_of", states: &["member"] },
    Kind { at: "/endpoint_sockets", states: &["valid"] },
    Kind { at: "/x509_svid_rules", states: &["verdict"] },
    Kind { at: "/spiffe_bundle_map/cases", states: &["grpc"] },
    Kind { at: "/workload_api_client", states: &[] },
];

/// Keys that explain an entry and state nothing.
const REMARKS: [&str; 12] = [
    "reason",
    "source",
    "level",
    "enforced_by",
    "how_to_build",
    "fixture",
    "note",
    "policy",
    "alternative",
    "spec",
    "file",
    "scope",
];

/// The cases of a file without `cases`; `None` when it is of no kind either.
pub(crate) fn cases(file: &Value) -> Result<Vec<Case>, String> {
    let known: Vec<_> = KINDS.iter().filter(|kind| file.pointer(kind.at).is_some()).collect();
    let top = |kind: &&Kind| kind.at.split('/').nth(1).unwrap_or_default().to_owned();
    let names: Vec<_> = known.iter().map(top).collect();
    let keys = file.as_object().into_iter().flat_map(Map::keys);
    let unknown: Vec<_> = keys.filter(|key| *key != "about" && !names.contains(key)).collect();
    if !unknown.is_empty() {
        return Err(format!("nobody knows the lists {unknown:?}"));
    }
    let mut cases = Vec::new();
    for kind in known {
        let entries = file.pointer(kind.at).and_then(Value::as_array);
        for (index, entry) in entries.into_iter().flatten().enumerate() {
            let name = kind.at.split('/').nth(1).unwrap_or_default();
            cases.push(case(name, kind.states, index, entry)?);
        }
    }
    Ok(cases)
}

fn case(kind: &str, states: &[&str], index: usize, entry: &Value) -> Result<Case, String> {
    let fields = entry.as_object().ok_or_else(|| format!("{kind}[{index}] is no object"))?;
    let (mut config, mut expect) = (Map::new(), Map::new());
    config.insert("kind".into(), kind.into());
    for (key, value) in fields {
        if states.contains(&&**key) {
            // Of prose, the first word decides: "reject whole map".
            let word = value
                .as_str()
                .filter(|_| key == "grpc")
                .and_then(|text| text.split(|c: char| !c.is_alphabetic()).next());
            expect.insert(key.clone(), word.map_or_else(|| value.clone(), Value::from));
        } else if !REMARKS.contains(&&**key) {
            config.insert(key.clone(), value.clone());
        }
    }
    if states.is_empty() {
        expect.insert("holds".into(), json!(true));
    }
    if expect.is_empty() {
        return Err(format!("{kind}[{index}] states nothing"));
    }
    // A name of its own, or its place and how it begins.
    let name = ["id", "case", "rule"].iter().find_map(|key| fields.get(*key)?.as_str());
    let name = name.map_or_else(|| format!("{kind}[{index}]"), |name| format!("{kind}: {name}"));
    Ok(Case::new(name, config.into(), expect.into()))
}
