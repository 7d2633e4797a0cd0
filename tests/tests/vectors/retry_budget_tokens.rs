use crate::case::Case;

pub(crate) fn run(_case: &Case) -> Result<(), String> {
    Err("no adapter yet".to_owned())
}
