"""How features become symbols and back: spike codes, dense formats, plans, calibration."""
