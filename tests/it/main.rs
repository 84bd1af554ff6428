//! The one integration binary.

mod cli_commands;
mod agent_zoo;
mod keeper;
mod machine_cases;
mod machine_phase;
mod machine_sim;
mod machine_support;
mod machine_world;
mod tidy;
