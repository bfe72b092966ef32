"""What people have, file by file: every case that once failed, on files that the tests make themselves."""
