#![no_main]

mesh_fuzz::target!();
