//! The operating system's random numbers. The standard library takes the keys of its hash maps from them, so that maps
//! are iterated in another order in each process; here they come from a counter, and a run depends on its seed alone.

use std::cell::Cell;

thread_local! {
    /// Of each thread its own: the order in which threads begin is not the seed's.
    static COUNTER: Cell<u64> = const { Cell::new(0) };
}

/// In place of the C library's function of this name.
///
/// # Safety
/// `buffer` must have room for `length` bytes.
#[expect(unsafe_code, reason = "replaces a function of the C library")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    for place in 0..length {
        let count = COUNTER.get() + 1;
        COUNTER.set(count);
        let number = count.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // SAFETY: `place` is below `length`.
        unsafe { buffer.add(place).write((number >> 56) as u8) };
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}

/// Makes the linker keep this module.
pub fn is_seeded() -> bool {
    COUNTER.get() < u64::MAX
}
