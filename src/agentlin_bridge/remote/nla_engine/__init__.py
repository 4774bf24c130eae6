"""NLA Engine: one-pass workflow agents behind `/api/v1`. No client tools, no cancel, no pause, ids of its own."""
