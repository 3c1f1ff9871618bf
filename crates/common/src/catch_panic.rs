//! Converts panics of third-party libraries into errors.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Calls `work` and returns its result. Meant for libraries that panic on damaged files: the panic
/// is not printed.
///
/// After a panic, do not use state that `work` may have left inconsistent.
///
/// # Errors
///
/// The message of the panic.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CATCHING.get() {
                previous(info);
            }
        }));
    });
    let outer = CATCHING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(outer);
    result.map_err(|panic| panic_message(&*panic))
}

/// Returns the message of a panic payload.
#[must_use]
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("panicked without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_the_panic_message_as_an_error() {
        assert_eq!(catch(|| 1), Ok(1));
        assert_eq!(
            catch(|| panic!("no {}", "sense")),
            Err::<(), _>("no sense".into())
        );
        let nested = catch(|| (catch(|| panic!("inner")), CATCHING.get()));
        assert_eq!(nested, Ok((Err::<(), _>("inner".into()), true)));
        assert!(!CATCHING.get());
    }
}
