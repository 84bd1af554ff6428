//! Agents of every temper, run by the real binary: what each does, and what becomes of it.

mod bare;
mod ends;
mod lane;
mod place;
mod prompts;
mod whole;
mod zoo;
