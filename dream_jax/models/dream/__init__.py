"""DREAM itself. Only the abstract of its paper is public, so the formulas are our own."""
