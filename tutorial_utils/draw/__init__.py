"""Drawings: matplotlib figures for cells (`figures`), HTML for explorers (`html`)."""
