package access

// Schedule is a weekly timetable in the site's time zone.
type Schedule struct{ Name string }
