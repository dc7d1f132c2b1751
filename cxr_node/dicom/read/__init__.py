"""From received bytes to a header that was checked: encoding, admission, age, projection."""
