"""`revenant run --ui`: a running machine as a screen full of panes (README.md beside this)."""
