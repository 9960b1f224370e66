"""Tests of one piece at a time: no server is started; tables are real ones in a temporary directory."""
