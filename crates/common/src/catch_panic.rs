//! Panics of other people's code, as errors.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// What `work` returns, or the message of its panic, which is then not printed: for libraries that
/// panic on damaged files.
///
/// What `work` leaves half-done must not be used afterwards.
///
/// # Errors
///
/// `work` panicked.
pub fn expected<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !EXPECTED.get() {
                before(info);
            }
        }));
    });
    let outer = EXPECTED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    EXPECTED.set(outer);
    result.map_err(|panic| message(&*panic))
}

/// What a panic says.
#[must_use]
pub fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it failed without a word").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(expected(|| 1), Ok(1));
        assert_eq!(
            expected(|| panic!("no {}", "sense")),
            Err::<(), _>("no sense".into())
        );
        let nested = expected(|| (expected(|| panic!("inner")), EXPECTED.get()));
        assert_eq!(nested, Ok((Err::<(), _>("inner".into()), true)));
        assert!(!EXPECTED.get());
    }
}
