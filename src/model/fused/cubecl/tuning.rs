//! `RGBY_AUTOTUNE`: whether Burn may measure its kernels for convolution.

use std::env;
use std::ffi::OsStr;
use std::sync::LazyLock;

static ALLOWED: LazyLock<Result<bool, String>> = LazyLock::new(|| {
    let value = env::var_os("RGBY_AUTOTUNE");
    parse(value.as_deref(), cfg!(feature = "autotune"))
});

/// Returns whether Burn measures its kernels for each convolution, instead of rgby's rule.
///
/// # Errors
///
/// `RGBY_AUTOTUNE` is neither 0 nor 1, or 1 in a build that cannot measure.
pub fn autotune() -> Result<bool, String> {
    ALLOWED.clone()
}

fn parse(value: Option<&OsStr>, available: bool) -> Result<bool, String> {
    let value = value.map(OsStr::to_string_lossy).unwrap_or_default();
    match (&*value, available) {
        ("" | "0", _) => Ok(false),
        ("1", true) => Ok(true),
        ("1", false) => Err("RGBY_AUTOTUNE=1 needs a build with the feature `autotune`".into()),
        _ => Err(format!("RGBY_AUTOTUNE is `{value}`; use 0 or 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuning_needs_the_variable_and_the_feature() {
        for available in [false, true] {
            assert_eq!(parse(None, available), Ok(false));
            assert_eq!(parse(Some("0".as_ref()), available), Ok(false));
            assert!(parse(Some("yes".as_ref()), available).is_err());
        }
        assert_eq!(parse(Some("1".as_ref()), true), Ok(true));
        let error = parse(Some("1".as_ref()), false).unwrap_err();
        assert!(error.contains("`autotune`"), "{error}");
    }
}
