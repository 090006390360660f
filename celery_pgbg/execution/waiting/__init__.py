"""Waiting for ends: what is waited for, and the threads that look for it; and for a free slot."""
