"""What people use at a desk: replay and its report, the demo, fitting, checking. The daemon never imports it."""
